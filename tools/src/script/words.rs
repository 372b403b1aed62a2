//! A script line as words: apart by white space, but not within double quotes; `#` begins a comment. Each word
//! knows its column, so that an error can point at it.

/// A word and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Column of its first character, from 1.
    pub(super) column: usize,
    /// As written, quotes included.
    pub(super) text: String,
}

/// What is wrong, and at which column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) column: usize,
    pub(super) what: String,
}

impl Fault {
    pub(super) fn new(column: usize, what: impl Into<String>) -> Self {
        Self { column, what: what.into() }
    }
}

impl Word {
    /// The word without its first `skip` characters: the value of an option, with its own column.
    pub(super) fn after(&self, skip: usize) -> Self {
        Self { column: self.column + skip, text: self.text.chars().skip(skip).collect() }
    }

    /// A fault at this word.
    pub(super) fn fault(&self, what: impl Into<String>) -> Fault {
        Fault::new(self.column, what)
    }
}

/// The words of a line.
pub(super) fn words(line: &str) -> Result<Vec<Word>, Fault> {
    let mut words: Vec<Word> = Vec::new();
    let (mut within, mut quoted, mut escaped) = (false, None, false);
    for (column, letter) in (1..).zip(line.chars()) {
        if quoted.is_none() && letter == '#' {
            break;
        }
        if quoted.is_none() && letter.is_whitespace() {
            within = false;
            continue;
        }
        if !within {
            words.push(Word { column, text: String::new() });
            within = true;
        }
        if letter == '"' && !escaped {
            quoted = if quoted.is_some() { None } else { Some(column) };
        }
        escaped = quoted.is_some() && letter == '\\' && !escaped;
        if let Some(word) = words.last_mut() {
            word.text.push(letter);
        }
    }
    match quoted {
        Some(column) => Err(Fault::new(column, "this quotation mark is not closed")),
        None => Ok(words),
    }
}

/// The bytes of a quoted text, or of one without quotes: `\r`, `\n`, `\t`, `\0`, `\\`, `\"` and `\xHH` are what they
/// are in Rust.
pub(super) fn bytes(word: &Word) -> Result<Vec<u8>, Fault> {
    let inner = word.text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let text = inner.unwrap_or(&word.text);
    let mut bytes = Vec::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            bytes.extend(letter.to_string().bytes());
            continue;
        }
        match letters.next() {
            Some('r') => bytes.push(b'\r'),
            Some('n') => bytes.push(b'\n'),
            Some('t') => bytes.push(b'\t'),
            Some('0') => bytes.push(0),
            Some(same @ ('\\' | '"')) => bytes.extend(same.to_string().bytes()),
            Some('x') => {
                let digits: String = letters.by_ref().take(2).collect();
                let value = u8::from_str_radix(&digits, 16);
                bytes.push(value.map_err(|_| word.fault(format!("\\x{digits} is no byte")))?);
            }
            other => return Err(word.fault(format!("unknown escape \\{}", other.unwrap_or(' ')))),
        }
    }
    Ok(bytes)
}

/// Bytes as [`bytes`] reads them, in quotes.
pub(super) fn quote(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for &byte in bytes {
        match byte {
            b'\r' => text += "\\r",
            b'\n' => text += "\\n",
            b'\t' => text += "\\t",
            b'\\' => text += "\\\\",
            b'"' => text += "\\\"",
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text += &format!("\\x{byte:02x}"),
        }
    }
    text + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_know_their_columns_and_quotes_hold_them_together() {
        let found = words("1 tcp  data=\"a # \\\"b\" new # end").unwrap();
        let found: Vec<_> = found.iter().map(|word| (word.column, word.text.as_str())).collect();
        assert_eq!(found, [(1, "1"), (3, "tcp"), (8, "data=\"a # \\\"b\""), (23, "new")]);
        assert_eq!(words("x \"y").unwrap_err().column, 3);
    }

    #[test]
    fn bytes_are_quoted_and_read_back() {
        let all: Vec<u8> = (0..=255).collect();
        let word = Word { column: 1, text: quote(&all) };
        assert_eq!(bytes(&word).unwrap(), all);
        assert!(bytes(&Word { column: 4, text: "\"\\q\"".into() }).is_err());
    }
}
