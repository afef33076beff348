//! How likely something unsynced survives. A fair coin for every sector never shows the states in which nearly
//! everything or nearly nothing made it, and those are the interesting ones.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odds {
    Nothing,
    Few,
    Half,
    Most,
    Everything,
}

const ALL: [Odds; 5] = [
    Odds::Nothing,
    Odds::Few,
    Odds::Half,
    Odds::Most,
    Odds::Everything,
];

/// One in so many is the exception.
const RARE: u32 = 16;

impl Odds {
    pub fn pick(random: &mut fastrand::Rng) -> Odds {
        ALL[random.usize(..ALL.len())]
    }

    pub fn flip(self, random: &mut fastrand::Rng) -> bool {
        match self {
            Odds::Nothing => false,
            Odds::Few => random.u32(..RARE) == 0,
            Odds::Half => random.bool(),
            Odds::Most => random.u32(..RARE) != 0,
            Odds::Everything => true,
        }
    }
}
