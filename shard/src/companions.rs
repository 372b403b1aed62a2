//! What few connections have beside their lines in the table: an edited control connection its streams. The cold line
//! names the companion; packets of other connections never come here, nor do readers on other threads.

use std::net::IpAddr;

use slab::Slab;

use crate::sequence::Stream;
use crate::shares::{self, Shares, Source};
use crate::table::bucket::Direction;

/// Connections whose payload may be under edit at once; each direction costs some 300 bytes.
const MAX_EDITED: u32 = 65_536;

/// Those of one source among them.
const MAX_EDITED_OF_SOURCE: u32 = MAX_EDITED / shares::PART;

/// Why a connection's payload cannot be edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotEdited {
    /// As many are under edit as may be.
    Full,
    /// As many of its source are as may be.
    SourceFull,
}

/// A connection's companion.
#[derive(Debug, Default)]
pub(crate) struct Companion {
    /// The streams that were edited, by who sends them.
    streams: [Option<Box<Stream>>; 2],
    /// Whom the edited connection counts for.
    source: Source,
}

impl Companion {
    /// Forgets what lies far behind `seq`, which `direction`'s sender has just sent.
    pub(crate) fn forget_before(&mut self, direction: Direction, seq: u32) {
        if let Some(stream) = &mut self.streams[direction as usize] {
            stream.forget_before(seq);
        }
    }

    const fn is_edited(&self) -> bool {
        self.streams[0].is_some() || self.streams[1].is_some()
    }
}

/// All of them. A number here is never 0, which is what the cold line of a connection without companion says.
#[derive(Debug)]
pub(crate) struct Companions {
    slab: Slab<Companion>,
    edited: u32,
    edited_of_source: Shares,
}

impl Companions {
    /// None. `secret` keys hashes.
    pub(crate) fn new(secret: u64) -> Self {
        Self { slab: Slab::new(), edited: 0, edited_of_source: Shares::new(secret) }
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Makes a companion. Its number.
    pub(crate) fn add(&mut self) -> u32 {
        let key = self.slab.insert(Companion::default());
        // There are no more than connections, of which there are 2^30.
        u32::try_from(key).map_or(0, |key| key + 1)
    }

    fn key(number: u32) -> usize {
        usize::try_from(number).unwrap_or(usize::MAX).wrapping_sub(1)
    }

    pub(crate) fn remove(&mut self, number: u32) {
        if let Some(gone) = self.slab.try_remove(Self::key(number))
            && gone.is_edited()
        {
            self.edited -= 1;
            self.edited_of_source.release(gone.source, 1);
        }
        if self.slab.is_empty() {
            // A crowd that is gone keeps no memory.
            self.slab = Slab::new();
        }
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Companion> {
        self.slab.get(Self::key(number))
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Companion> {
        self.slab.get_mut(Self::key(number))
    }

    /// The stream that `direction`'s sender writes, if it was edited.
    pub(crate) fn stream(&self, number: u32, direction: Direction) -> Option<&Stream> {
        self.get(number)?.streams[direction as usize].as_deref()
    }

    /// As [`Companions::stream`], to be edited on behalf of `source`, the connection's original one.
    pub(crate) fn stream_mut(
        &mut self,
        number: u32,
        direction: Direction,
        source: IpAddr,
    ) -> Result<&mut Stream, NotEdited> {
        // A number that is nobody's has no room.
        let companion = self.slab.get_mut(Self::key(number)).ok_or(NotEdited::Full)?;
        if !companion.is_edited() {
            let source = shares::source(source);
            if self.edited >= MAX_EDITED {
                return Err(NotEdited::Full);
            }
            if self.edited_of_source.of(source) >= MAX_EDITED_OF_SOURCE {
                return Err(NotEdited::SourceFull);
            }
            self.edited += 1;
            self.edited_of_source.take(source);
            companion.source = source;
        }
        Ok(companion.streams[direction as usize].get_or_insert_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(all: &mut Companions, source: [u8; 4]) -> (u32, Result<(), NotEdited>) {
        let number = all.add();
        (number, all.stream_mut(number, Direction::Original, source.into()).map(drop))
    }

    #[test]
    fn a_source_that_has_much_edited_leaves_room_for_another() {
        let (flooding, other) = ([192, 0, 2, 1], [192, 0, 2, 2]);
        let mut all = Companions::new(5);
        let mut numbers = Vec::new();
        for _ in 0..MAX_EDITED_OF_SOURCE {
            let (number, done) = edit(&mut all, flooding);
            assert_eq!(done, Ok(()));
            numbers.push(number);
        }
        // The other direction of one that has its place costs nothing.
        assert!(all.stream_mut(numbers[0], Direction::Reply, flooding.into()).is_ok());
        let (refused, done) = edit(&mut all, flooding);
        assert_eq!(done, Err(NotEdited::SourceFull));
        let (number, done) = edit(&mut all, other);
        assert_eq!(done, Ok(()));
        numbers.extend([refused, number]);
        assert_eq!(all.edited, MAX_EDITED_OF_SOURCE + 1);

        all.remove(numbers.remove(0));
        let (number, done) = edit(&mut all, flooding);
        assert_eq!(done, Ok(()), "who ends makes room");
        numbers.push(number);
        for number in numbers {
            all.remove(number);
            all.remove(number);
        }
        assert_eq!((all.len(), all.edited, all.edited_of_source.is_empty()), (0, 0, true));
    }

    #[test]
    fn a_crowd_of_sources_is_refused() {
        let mut all = Companions::new(5);
        for host in 0..MAX_EDITED {
            assert_eq!(edit(&mut all, host.to_be_bytes()).1, Ok(()));
        }
        assert_eq!(edit(&mut all, [192, 0, 2, 1]).1, Err(NotEdited::Full));
    }
}
