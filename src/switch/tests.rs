//! What a bridge does without a controller.

use super::*;

fn actions(switch: &Switch) -> Vec<String> {
    let rules = switch.bridge("br0").unwrap().tables().dump(&FlowMod::new(Command::Dump));
    rules.iter().map(|rule| crate::flow::print::actions(&rule.actions, &crate::flow::NoNames)).collect()
}

#[test]
fn a_change_of_fail_mode_forgets_the_flows_as_open_vswitch_does() {
    let mut switch = Switch::default();
    switch.add_bridge("br0", 0).unwrap();
    let drop = FlowMod { priority: 5, ..FlowMod::new(Command::Add) };
    let mut step = |mode, wanted: &[&str]| {
        let former = switch.set_fail_mode("br0", mode, 1).unwrap();
        assert_eq!(actions(&switch), wanted, "{mode:?}");
        // A flow of the user's own outlives all but the next change between secure and not.
        switch.apply("br0", std::slice::from_ref(&drop), 2).unwrap();
        former
    };
    step(Some(FailMode::Standalone), &["NORMAL"]);
    step(None, &["drop", "NORMAL"]);
    step(Some(FailMode::Standalone), &["drop", "NORMAL"]);
    step(Some(FailMode::Secure), &[]);
    step(Some(FailMode::Secure), &["drop"]);
    step(None, &["NORMAL"]);
    let former = step(Some(FailMode::Secure), &[]);
    switch.snapshot();
    switch.restore_fail_mode("br0", former).unwrap();
    assert_eq!((actions(&switch).len(), switch.bridge("br0").unwrap().fail_mode()), (2, None));
    assert!(switch.set_fail_mode("br9", None, 0).is_err());
}
