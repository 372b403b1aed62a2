//! Cuts a flow into `key=value`, `key:value`, `key(value)` and bare `key` items, each with its place in the line. It knows
//! nothing of fields or actions, looks at every character once per nesting level, and never recurses.

use core::ops::Range;

use super::error::{Error, Problem};

/// Bytes of a line from here to there, counted from the line's start.
pub type Span = Range<usize>;

/// A piece of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    pub text: &'a str,
    /// Where it starts in the line.
    pub at: usize,
}

impl<'a> Text<'a> {
    /// A whole line.
    #[must_use]
    pub const fn line(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The place of the piece.
    #[must_use]
    pub const fn span(&self) -> Span {
        self.at..self.at + self.text.len()
    }

    /// The place just behind the piece.
    #[must_use]
    pub const fn end(&self) -> Span {
        let end = self.at + self.text.len();
        end..end
    }

    /// Bytes `from..to` of the piece; empty if they do not exist.
    #[must_use]
    pub fn slice(&self, from: usize, to: usize) -> Self {
        Self { text: self.text.get(from..to).unwrap_or_default(), at: self.at + from.min(self.text.len()) }
    }

    /// Without white space around.
    #[must_use]
    pub fn trim(&self) -> Self {
        let start = self.text.len() - self.text.trim_start().len();
        Self { text: self.text.trim(), at: self.at + start }
    }

    /// Cut at the first `separator`.
    #[must_use]
    pub fn split_once(&self, separator: &str) -> Option<(Self, Self)> {
        let at = self.text.find(separator)?;
        Some((self.slice(0, at), self.slice(at + separator.len(), self.text.len())))
    }

    /// An error at this piece.
    #[must_use]
    pub const fn error(&self, problem: Problem) -> Error {
        Error { problem, span: self.span() }
    }
}

/// What stands between a key and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joint {
    /// There is no value.
    None,
    /// `=` or `:`.
    Sign,
    /// Parentheses.
    Parentheses,
}

/// `key=value` and its kin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    pub key: Text<'a>,
    pub joint: Joint,
    /// The value without its parentheses; empty where there is none.
    pub value: Text<'a>,
    /// What follows `->` behind parentheses.
    pub destination: Option<Text<'a>>,
}

impl<'a> Item<'a> {
    /// Key and value.
    #[must_use]
    pub fn span(&self) -> Span {
        let end = self.destination.as_ref().unwrap_or(&self.value).end().start;
        let end = if self.joint == Joint::Parentheses && self.destination.is_none() { end + 1 } else { end };
        self.key.at..end.max(self.key.end().start)
    }

    /// The value, which has to be there.
    pub fn needed_value(&self) -> Result<Text<'a>, Error> {
        if self.value.text.is_empty() {
            return Err(self.key.error(Problem::MissingValue { key: self.key.text.to_owned() }));
        }
        Ok(self.value)
    }

    /// Refuses a value.
    pub fn no_value(&self) -> Result<(), Error> {
        if self.joint == Joint::None || self.value.text.is_empty() && self.joint == Joint::Parentheses {
            return Ok(());
        }
        Err(self.value.error(Problem::UnwantedValue { key: self.key.text.to_owned() }))
    }
}

/// Iterates over the items of a piece of text.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    text: Text<'a>,
    position: usize,
}

const fn is_separator(byte: u8) -> bool {
    matches!(byte, b',' | b' ' | b'\t' | b'\r' | b'\n')
}

impl<'a> Items<'a> {
    /// The items of `text`.
    #[must_use]
    pub const fn new(text: Text<'a>) -> Self {
        Self { text, position: 0 }
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> Text<'a> {
        self.text.slice(self.position, self.text.text.len())
    }

    fn peek(&self) -> Option<u8> {
        self.text.text.as_bytes().get(self.position).copied()
    }

    /// Moves behind the quoted string that starts here.
    fn skip_quoted(&mut self) -> Result<(), Error> {
        let start = self.position;
        self.position += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.position += 1;
                    return Ok(());
                }
                Some(b'\\') => self.position += 2,
                Some(_) => self.position += 1,
                None => return Err(self.text.slice(start, start + 1).error(Problem::Unclosed { what: '"' })),
            }
        }
    }

    /// Moves to where `stop` says, at nesting level 0.
    fn skip_until(&mut self, stop: impl Fn(u8) -> bool) -> Result<(), Error> {
        let mut depth = 0usize;
        let mut outermost = self.position;
        while let Some(byte) = self.peek() {
            if depth == 0 && stop(byte) {
                return Ok(());
            }
            match byte {
                b'"' => {
                    self.skip_quoted()?;
                    continue;
                }
                b'(' => {
                    if depth == 0 {
                        outermost = self.position;
                    }
                    depth += 1;
                }
                b')' => {
                    let here = self.text.slice(self.position, self.position + 1);
                    depth = depth.checked_sub(1).ok_or_else(|| here.error(Problem::Unopened))?;
                }
                _ => {}
            }
            self.position += 1;
        }
        if depth > 0 {
            return Err(self.text.slice(outermost, outermost + 1).error(Problem::Unclosed { what: '(' }));
        }
        Ok(())
    }

    fn item(&mut self) -> Result<Option<Item<'a>>, Error> {
        while self.peek().is_some_and(is_separator) {
            self.position += 1;
        }
        let start = self.position;
        if self.peek().is_none() {
            return Ok(None);
        }
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => self.skip_quoted()?,
                b')' => {
                    return Err(self.text.slice(self.position, self.position + 1).error(Problem::Unopened));
                }
                b'=' | b':' | b'(' => break,
                _ if is_separator(byte) => break,
                _ => self.position += 1,
            }
        }
        let key = self.text.slice(start, self.position);
        let mut item = Item {
            key,
            joint: Joint::None,
            value: Text { text: "", at: key.end().start },
            destination: None,
        };
        match self.peek() {
            Some(b'=' | b':') => {
                item.joint = Joint::Sign;
                self.position += 1;
                let from = self.position;
                self.skip_until(is_separator)?;
                item.value = self.text.slice(from, self.position);
            }
            Some(b'(') => {
                item.joint = Joint::Parentheses;
                let open = self.position;
                self.position += 1;
                let from = self.position;
                self.skip_until(|byte| byte == b')')?;
                if self.peek().is_none() {
                    return Err(self.text.slice(open, open + 1).error(Problem::Unclosed { what: '(' }));
                }
                item.value = self.text.slice(from, self.position);
                self.position += 1;
                if self.rest().text.starts_with("->") {
                    self.position += 2;
                    let from = self.position;
                    self.skip_until(is_separator)?;
                    item.destination = Some(self.text.slice(from, self.position));
                } else if self.peek().is_some_and(|byte| !is_separator(byte)) {
                    let here = self.text.slice(self.position, self.text.text.len());
                    let closing = here.text.starts_with(')');
                    let problem = Problem::Expected { expected: "',' after ')'".into() };
                    return Err(if closing {
                        here.slice(0, 1).error(Problem::Unopened)
                    } else {
                        here.error(problem)
                    });
                }
            }
            _ => {}
        }
        Ok(Some(item))
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.item().transpose();
        if matches!(item, Some(Err(_))) {
            self.position = self.text.text.len();
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_know_their_key_value_and_place() {
        let line = Text::line("ip, tp_src=5 ct(a,(b)) load:1->x f(1)->d");
        let items: Vec<_> = Items::new(line).map(Result::unwrap).collect();
        let seen: Vec<_> = items.iter().map(|i| (i.key.text, i.value.text, i.key.at)).collect();
        assert_eq!(
            seen,
            [("ip", "", 0), ("tp_src", "5", 4), ("ct", "a,(b)", 13), ("load", "1->x", 23), ("f", "1", 33)]
        );
        assert_eq!(items[4].destination.unwrap().text, "d");
        assert_eq!(items[2].span(), 13..22);
    }

    #[test]
    fn unbalanced_parentheses_and_quotes_are_found_where_they_are() {
        for (text, at) in [("ct(a", 2), ("ct(a))", 5), ("x=(1", 2), ("a,\"b", 2), (")", 0), ("ct(((((((", 3)]
        {
            let error = Items::new(Text::line(text)).find_map(Result::err).unwrap();
            assert_eq!(error.span.start, at, "{text}");
        }
    }
}
