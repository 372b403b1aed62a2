//! Figures in documents: what stands between `<!-- NAME -->` and `<!-- /NAME -->` is made by the tools, and renewed by them.

use std::fs;
use std::path::Path;

use crate::BenchError;

/// Puts `text` between the marks `name` of the document.
///
/// # Errors
/// If the file cannot be read or written, or has no such marks.
pub fn renew(path: &Path, name: &str, text: &str) -> Result<(), BenchError> {
    let old = fs::read_to_string(path).map_err(BenchError::at(path))?;
    let missing =
        || BenchError::Refused(format!("{}: no marks <!-- {name} --> and <!-- /{name} -->", path.display()));
    let new = replaced(&old, name, text).ok_or_else(missing)?;
    fs::write(path, new).map_err(BenchError::at(path))
}

fn replaced(document: &str, name: &str, text: &str) -> Option<String> {
    let (start, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = document.split_once(&start)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{start}\n{}\n\n{end}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_the_marks_is_replaced_and_nothing_else() {
        let document = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n";
        let once = replaced(document, "x", "new\n").unwrap();
        assert_eq!(once, "a\n<!-- x -->\n\nnew\n\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n");
        assert_eq!(replaced(&once, "x", "new\n").as_ref(), Some(&once));
        assert_eq!(replaced(document, "z", "new"), None);
        assert_eq!(replaced("<!-- x -->\n", "x", "new"), None);
    }
}
