//! Several sorted lists of entries into one, in steps that do not take long. No I/O: who drives it feeds what runs dry.

use super::entry::Entry;
use super::file::Encoder;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// See the module.
pub struct Merge {
    inputs: Vec<Input>,
    /// The next entry of every input that has one at hand.
    next: BinaryHeap<Reverse<(Entry, usize)>>,
    out: Encoder,
}

#[derive(Default)]
struct Input {
    entries: Vec<Entry>,
    at: usize,
    /// Nothing comes behind `entries`.
    ended: bool,
}

/// What a merge needs to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// More entries of this input.
    Input(usize),
    /// Its blocks to be taken.
    Output,
    Nothing,
}

impl Merge {
    pub fn new(inputs: usize) -> Merge {
        Merge {
            inputs: (0..inputs).map(|_| Input::default()).collect(),
            next: BinaryHeap::with_capacity(inputs),
            out: Encoder::default(),
        }
    }

    /// The next entries of an input that ran dry; none at its end.
    pub fn feed(&mut self, number: usize, entries: Vec<Entry>) {
        let input = &mut self.inputs[number];
        assert!(input.at == input.entries.len(), "an input is fed when dry");
        input.ended = entries.is_empty();
        input.entries = entries;
        input.at = 0;
        self.advance(number);
    }

    /// Merges until `out_bytes` are there to be taken, an input runs dry, or all is merged.
    pub fn step(&mut self, out_bytes: usize) -> Needs {
        loop {
            if let Some(dry) = self.dry() {
                return Needs::Input(dry);
            }
            // Until an input runs dry.
            loop {
                if self.out.ready() >= out_bytes {
                    return Needs::Output;
                }
                let Some(Reverse((entry, number))) = self.next.pop() else {
                    return Needs::Nothing;
                };
                self.out.push(entry);
                if !self.advance(number) && !self.inputs[number].ended {
                    break;
                }
            }
        }
    }

    pub fn out(&mut self) -> &mut Encoder {
        &mut self.out
    }

    fn dry(&self) -> Option<usize> {
        let is_dry = |input: &Input| input.entries.is_empty() && !input.ended;
        self.inputs.iter().position(is_dry)
    }

    /// Makes the input's next entry a candidate; false if there is none at hand.
    fn advance(&mut self, number: usize) -> bool {
        let input = &mut self.inputs[number];
        let Some(entry) = input.entries.get(input.at) else {
            input.entries.clear();
            input.at = 0;
            return false;
        };
        input.at += 1;
        self.next.push(Reverse((*entry, number)));
        true
    }
}
