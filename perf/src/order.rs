//! In which order the packets of many flows come: each number below a count once, then again, in an order that neither
//! caches nor prefetchers can foresee and that takes no memory. It is Lehmer's generator: the powers of a primitive root
//! modulo the least prime above the count, which are all numbers below the prime; the few that are too large are skipped.

/// Numbers from 0 to a count, each once a lap.
#[derive(Clone, Debug)]
pub struct Order {
    count: u64,
    prime: u64,
    root: u64,
    /// 2^64 by the prime, rounded down: a product of two numbers below the prime is reduced without a division.
    reciprocal: u64,
    /// The last power, 1 to the prime less one.
    power: u64,
}

impl Order {
    /// The numbers below `count`, at least 1; another `seed`, another order.
    #[must_use]
    pub fn new(count: u32, seed: u32) -> Self {
        let count = u64::from(count.max(1));
        let prime = (count + 1..).find(|&number| factors(number) == [number]).unwrap_or(2);
        let root = primitive_root(prime, u64::from(seed));
        let reciprocal = u64::try_from((1_u128 << 64) / u128::from(prime)).unwrap_or(u64::MAX);
        Self { count, prime, root, reciprocal, power: 1 }
    }

    /// The next number.
    #[inline]
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends, and there is nothing to be gained from an adapter"
    )]
    pub fn next(&mut self) -> u32 {
        loop {
            // Both are below 2^33, so the product fits, and the quotient is one too small at the most.
            let product = self.power * self.root;
            let quotient = (u128::from(product) * u128::from(self.reciprocal)) >> 64;
            let rest = product - quotient as u64 * self.prime;
            self.power = if rest < self.prime { rest } else { rest - self.prime };
            if self.power <= self.count {
                return (self.power - 1) as u32;
            }
        }
    }
}

/// The prime factors of `number`, at least 2, each once.
fn factors(mut number: u64) -> Vec<u64> {
    let mut found = Vec::new();
    let mut factor = 2;
    while factor * factor <= number {
        if number.is_multiple_of(factor) {
            found.push(factor);
            while number.is_multiple_of(factor) {
                number /= factor;
            }
        }
        factor += 1;
    }
    if number > 1 {
        found.push(number);
    }
    found
}

/// A number whose powers are all numbers from 1 to `prime` - 1; the search begins where `seed` says.
fn primitive_root(prime: u64, seed: u64) -> u64 {
    let factors = factors(prime - 1);
    let start = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 31;
    let candidates = (0..prime - 1).map(|step| 1 + (start + step) % (prime - 1));
    let is_root = |&root: &u64| factors.iter().all(|factor| power(root, (prime - 1) / factor, prime) != 1);
    candidates.into_iter().find(is_root).unwrap_or(1)
}

/// `base` to the `exponent`, modulo `modulus`, which is below 2^33.
fn power(base: u64, mut exponent: u64, modulus: u64) -> u64 {
    let (mut base, mut result) = (u128::from(base), 1);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result * base % u128::from(modulus);
        }
        base = base * base % u128::from(modulus);
        exponent >>= 1;
    }
    u64::try_from(result).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_once_a_lap() {
        for count in [1, 2, 3, 4, 5, 6, 7, 31, 32, 33, 1000, 100_000, 1 << 20] {
            for seed in [0, 1, 77, u32::MAX] {
                let mut order = Order::new(count, seed);
                for lap in 0..2 {
                    let mut seen = vec![false; count as usize];
                    for _ in 0..count {
                        let number = order.next() as usize;
                        assert!(!seen[number], "{number} of {count} comes twice in lap {lap}, seed {seed}");
                        seen[number] = true;
                    }
                }
            }
        }
    }

    #[test]
    fn the_largest_counts_are_reduced_rightly() {
        for count in [10_000_000, 1 << 31, u32::MAX] {
            let mut order = Order::new(count, 5);
            for _ in 0..1000 {
                let expected = u128::from(order.power) * u128::from(order.root) % u128::from(order.prime);
                let number = order.next();
                assert!(
                    number < count && (u128::from(number) + 1 == expected || expected > u128::from(count))
                );
            }
        }
    }

    #[test]
    fn steps_differ_from_one_to_the_next() {
        let mut order = Order::new(1_000_000, 1);
        let numbers: Vec<i64> = (0..1000).map(|_| order.next().into()).collect();
        let steps: std::collections::HashSet<i64> =
            numbers.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.len() > 990, "{}", steps.len());
    }
}
