//! "Did you mean": the known word nearest to one that is not known.

/// The candidate with the fewest edits, if it is near enough to be meant: at most a third of the word's
/// letters, and at least one edit is always forgiven.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer words are no typing errors, and the distance costs the product of the lengths.
    if word.len() > 64 {
        return None;
    }
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|&(edits, _)| edits <= limit)
        .min_by_key(|&(edits, _)| edits)
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours, one edit each.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
            let mut best =
                (at(&above, j) + usize::from(x != y)).min(at(&above, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_find_their_word_and_other_words_do_not() {
        let known = ["number", "name", "devargs", "rx_queues"];
        assert_eq!(nearest("numer", known), Some("number"));
        assert_eq!(nearest("nmae", known), Some("name"));
        assert_eq!(nearest("devarg", known), Some("devargs"));
        assert_eq!(nearest("RX_QUEUES", known), Some("rx_queues"));
        assert_eq!(nearest("socket", known), None);
        assert_eq!(nearest(&"x".repeat(1000), known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest("nw_scr", ["nw_dst", "nw_src"]), Some("nw_src"));
        assert_eq!(nearest("banana", ["nw_dst", "nw_src"]), None);
    }
}
