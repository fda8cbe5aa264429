//! What happens next: a queue of events by time, first in, first out among those of the same time.
//!
//! The heap holds three numbers for each event; the events themselves stay where they are until they are due. Messages
//! are large, and a heap moves what it holds many times.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bourse_wire::time::Mono;

/// See the module.
#[derive(Debug)]
pub struct Agenda<E> {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    events: Vec<Option<E>>,
    free: Vec<u32>,
    order: u64,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), order: 0 }
    }
}

impl<E> Agenda<E> {
    /// An event is due then.
    pub fn push(&mut self, at: Mono, event: E) {
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place as usize] = Some(event);
                place
            }
            None => {
                let place =
                    u32::try_from(self.events.len()).expect("fewer events than a u32 counts fit memory");
                self.events.push(Some(event));
                place
            }
        };
        self.order += 1;
        self.heap.push(Reverse((at.0, self.order, place)));
    }

    /// Takes the next event.
    pub fn pop(&mut self) -> Option<(Mono, E)> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        let event = self.events[place as usize].take().expect("what the heap names is there");
        Some((Mono(at), event))
    }

    /// When the next event is due.
    pub fn next_at(&self) -> Option<Mono> {
        self.heap.peek().map(|Reverse((at, ..))| Mono(*at))
    }

    /// How many events are to come.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Nothing is to come.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_as_they_were_put() {
        let mut agenda = Agenda::default();
        for (at, name) in [(5, "c"), (1, "a"), (5, "d"), (2, "b")] {
            agenda.push(Mono(at), name);
        }
        assert_eq!(agenda.next_at(), Some(Mono(1)));
        let all: String = std::iter::from_fn(|| agenda.pop()).map(|(_, name)| name).collect();
        assert_eq!(all, "abcd");
        assert!(agenda.is_empty());
    }
}
