use super::*;

#[test]
fn both_directions_have_one_home_and_every_shard_has_some() {
    let steering = Steering::symmetric(3, KeyWord::WELL_KNOWN);
    let mut seen = [0; 3];
    for port in 1000..4000 {
        let tuple = Tuple::new([10, 0, 0, 1].into(), [192, 0, 2, 7].into(), port, 80, 6, 5).unwrap();
        assert_eq!(steering.home(&tuple), steering.home(&tuple.reversed()));
        seen[steering.home(&tuple).index()] += 1;
    }
    assert!(seen.iter().all(|&count| count > 900), "{seen:?}");
}
