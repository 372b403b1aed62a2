//! What a packet takes with it when it is recirculated: where translation goes on and the fields that no
//! header carries. Equal contexts share an id, so that equal flows share a megaflow; an id lives as long as a
//! megaflow names it, either as its action or in its key.

use hashbrown::HashMap;
use slab::Slab;

use crate::flow::port::PortNumber;

/// State that survives a recirculation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    /// Index of the bridge.
    pub bridge: usize,
    /// Table to go on in.
    pub table: u8,
    /// OpenFlow metadata.
    pub metadata: u64,
    /// Registers 0 to 15, two a word, as in the key.
    pub registers: [u64; 8],
    /// OpenFlow number of the port the packet counts as received on.
    pub in_port: PortNumber,
    /// What `push` has left on the stack, the top last.
    pub stack: Box<[u128]>,
}

/// All live contexts of a worker.
#[derive(Debug)]
pub struct Contexts {
    slots: Slab<Slot>,
    ids: HashMap<Context, u32>,
    limit: usize,
}

#[derive(Debug)]
struct Slot {
    context: Context,
    references: u32,
}

impl Contexts {
    /// Room for `limit` contexts.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { slots: Slab::new(), ids: HashMap::new(), limit }
    }

    fn index(id: u32) -> Option<usize> {
        usize::try_from(id).ok()?.checked_sub(1)
    }

    /// Takes a reference to the id of `context`; `None` when there are too many.
    pub fn acquire(&mut self, context: &Context) -> Option<u32> {
        if let Some(&id) = self.ids.get(context) {
            self.retain(id);
            return Some(id);
        }
        if self.slots.len() >= self.limit {
            return None;
        }
        let index = self.slots.insert(Slot { context: context.clone(), references: 1 });
        let id = u32::try_from(index + 1).ok()?;
        self.ids.insert(context.clone(), id);
        Some(id)
    }

    /// One more reference to a live id.
    pub fn retain(&mut self, id: u32) {
        if let Some(slot) = Self::index(id).and_then(|index| self.slots.get_mut(index)) {
            slot.references += 1;
        }
    }

    /// Gives a reference back.
    pub fn release(&mut self, id: u32) {
        let Some(index) = Self::index(id) else { return };
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.references -= 1;
        if slot.references == 0 {
            let slot = self.slots.remove(index);
            self.ids.remove(&slot.context);
        }
    }

    /// The context of a live id.
    #[must_use]
    pub fn find(&self, id: u32) -> Option<&Context> {
        self.slots.get(Self::index(id)?).map(|slot| &slot.context)
    }

    /// Live contexts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(table: u8) -> Context {
        Context { bridge: 0, table, metadata: 0, registers: [0; 8], in_port: 1, stack: Box::default() }
    }

    #[test]
    fn equal_contexts_share_an_id_until_the_last_reference_goes() {
        let mut contexts = Contexts::new(2);
        let id = contexts.acquire(&context(1)).unwrap();
        assert_eq!(contexts.acquire(&context(1)), Some(id));
        let other = contexts.acquire(&context(2)).unwrap();
        assert_ne!(other, id);
        assert_eq!(contexts.acquire(&context(3)), None, "full");
        contexts.release(id);
        assert_eq!(contexts.find(id), Some(&context(1)));
        contexts.release(id);
        assert_eq!(contexts.find(id), None);
        assert!(contexts.acquire(&context(3)).is_some());
    }
}
