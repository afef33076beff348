//! A set of numbers that are handed out in turn: one bit each, an hour's messages in a megabyte.

#[derive(Default)]
pub struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// False if it was in the set already.
    pub fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = place(number);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        is_new
    }

    pub fn contains(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    pub fn len(&self) -> u64 {
        self.words
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }

    /// Those that the other set has not, in their order.
    pub fn without<'a>(&'a self, other: &'a Bits) -> impl Iterator<Item = u64> + 'a {
        let left = self.words.iter().enumerate().map(|(place, word)| {
            let theirs = other.words.get(place).copied().unwrap_or(0);
            (place, word & !theirs)
        });
        left.filter(|(_, word)| *word != 0)
            .flat_map(|(place, word)| {
                let first = place as u64 * 64;
                (0..64)
                    .filter(move |bit| word >> bit & 1 == 1)
                    .map(move |bit| first + bit)
            })
    }
}

fn place(number: u64) -> (usize, u64) {
    ((number / 64) as usize, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(numbers: &[u64]) -> Bits {
        let mut bits = Bits::default();
        for number in numbers {
            assert!(bits.insert(*number));
        }
        bits
    }

    #[test]
    fn what_was_inserted_is_in_it_once() {
        let mut bits = of(&[0, 63, 64, 1_000]);
        assert!(!bits.insert(63));
        assert_eq!(bits.len(), 4);
        assert!(bits.contains(64) && !bits.contains(65) && !bits.contains(1 << 30));
    }

    #[test]
    fn a_difference_goes_beyond_the_end_of_the_other() {
        let (all, some) = (of(&[1, 62, 63, 64, 500]), of(&[62, 64]));
        assert_eq!(all.without(&some).collect::<Vec<_>>(), [1, 63, 500]);
        assert_eq!(some.without(&all).count(), 0);
    }
}
