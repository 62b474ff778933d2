//! Numbers that look random and are the same for the same seed, so that what was found can be found again.

/// A generator (xorshift64*, Marsaglia 2003 and Vigna 2016).
pub struct Random(u64);

impl Random {
    /// The numbers of that seed.
    pub fn new(seed: u64) -> Random {
        // The state must not be 0, and small seeds must not begin alike.
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// All bits of the next number.
    pub fn long(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// One below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.long() >> 16).checked_rem(limit).unwrap_or(0)
    }

    /// Whether something happens that happens in `percent` of cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of these; the default of none.
    pub fn one_of<T: Copy + Default>(&mut self, choices: &[T]) -> T {
        let at = self.below(choices.len() as u64) as usize;
        choices.get(at).copied().unwrap_or_default()
    }

    /// 32 of its bits.
    pub fn word(&mut self) -> u32 {
        (self.long() >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_its_numbers_and_no_others() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            [(); 4].map(|()| random.long())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_ne!(draw(0), draw(1));
        let mut random = Random::new(1);
        assert!((0..1000).all(|_| random.below(5) < 5));
    }
}
