//! What few connections have beside their lines in the table: a data connection its parent's tuple, an edited control
//! connection its streams. The cold line names the companion; packets of other connections never come here.

use slab::Slab;
use weir_wire::Tuple;

use crate::sequence::Stream;
use crate::table::bucket::Direction;

/// Connections whose payload may be under edit at once; each direction costs some 300 bytes.
const MAX_EDITED: u32 = 65_536;

/// A connection's companion.
#[derive(Debug, Default)]
pub(crate) struct Companion {
    /// The original tuple of the control connection that announced it.
    pub(crate) parent: Option<Tuple>,
    /// The streams that were edited, by who sends them.
    streams: [Option<Box<Stream>>; 2],
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
#[derive(Debug, Default)]
pub(crate) struct Companions {
    slab: Slab<Companion>,
    edited: u32,
}

impl Companions {
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
        if let Some(gone) = self.slab.try_remove(Self::key(number)) {
            self.edited -= u32::from(gone.is_edited());
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

    /// As [`Companions::stream`], to be edited; `None` if too many are.
    pub(crate) fn stream_mut(&mut self, number: u32, direction: Direction) -> Option<&mut Stream> {
        let companion = self.slab.get_mut(Self::key(number))?;
        if !companion.is_edited() {
            if self.edited >= MAX_EDITED {
                return None;
            }
            self.edited += 1;
        }
        Some(companion.streams[direction as usize].get_or_insert_default())
    }
}
