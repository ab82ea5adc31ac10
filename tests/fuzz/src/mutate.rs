//! Which input comes next? Seeded mutations of a corpus.

/// A small deterministic generator (xorshift64*); the seed is printed, so that a run can be repeated.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Returns a generator.
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Returns the next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number below `limit`, 0 when `limit` is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(1).max(1);
        usize::try_from(self.next() % limit).unwrap_or(0)
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }
}

/// Fragments that decoders look for.
const DICTIONARY: &[&[u8]] = &[
    b"0",
    b"1",
    b"-",
    b",",
    b"[",
    b"]",
    b"[[",
    b"]]",
    b"0-4294967295",
    b"4294967295",
    b"4294967296",
    b"18446744073709551615",
    b"99999999999999999999",
    b"-1",
    b"1e999",
    b"0.1",
    b"inf",
    b"nan",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"\"\"",
    b"{",
    b"}",
    b"\"",
    b":",
    b"\\u0000",
    b"\\ud800",
    b"\n",
    b"\0",
    b"\xff",
    b"\xc6\x92",
    b"\xf0\x9f\x98\x83",
    b"f",
    b"0x",
    b".",
    b"..",
    b"--",
    b"academy-academy-academy--academy-academy-academy",
    b"(",
    b")",
    b"(vector,(0,1,1))",
    b";",
    b"=",
    b" ",
    b"cmd=",
    b"value=",
    b"kvsname=",
    b"{{",
    b"}}",
    b"|",
    b"&",
    b"not ",
    b"'",
    b"version",
    b"execution",
    b"R_lite",
    b"rank",
    b"children",
    b"core",
    b"gpu",
    b"nodelist",
    b"properties",
    b"data",
    b"type",
    b"ver",
    b"val",
    b"valref",
    b"dir",
    b"dirref",
    b"symlink",
    b"target",
    b"timestamp",
    b"name",
    b"context",
    b"count",
    b"with",
    b"slot",
    b"\x12\x00\xee\xff",
    b"\x8e\x01",
];

/// Largest input in bytes.
const SIZE_MAX: usize = 8192;

/// Returns a mutated copy of one of the seeds.
pub fn mutate(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = rng.pick(seeds).cloned().unwrap_or_default();
    for _round in 0..=rng.below(6) {
        mutate_once(rng, &mut input, seeds);
        input.truncate(SIZE_MAX);
    }
    input
}

fn mutate_once(rng: &mut Rng, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let at = rng.below(input.len() + 1);
    match rng.below(9) {
        // flip a bit
        0 => {
            let bit = rng.below(8);
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        // replace a byte
        1 => {
            let value = rng.next().to_le_bytes()[0];
            if let Some(byte) = input.get_mut(at) {
                *byte = value;
            }
        }
        // truncate
        2 => input.truncate(at),
        // remove a stretch
        3 => {
            let end = (at + 1 + rng.below(16)).min(input.len());
            if at < end {
                input.drain(at..end);
            }
        }
        // insert from the dictionary
        4 | 5 => {
            let word = rng.pick(DICTIONARY).copied().unwrap_or_default();
            input.splice(at..at, word.iter().copied());
        }
        // repeat a stretch, up to many times
        6 => {
            let end = (at + 1 + rng.below(32)).min(input.len());
            let stretch = input.get(at..end).unwrap_or_default().to_vec();
            let times = 1 << rng.below(9);
            let room = SIZE_MAX.saturating_sub(input.len());
            let more: Vec<u8> = stretch
                .iter()
                .copied()
                .cycle()
                .take((stretch.len() * times).min(room))
                .collect();
            input.splice(end..end, more);
        }
        // splice with another seed
        7 => {
            let other = rng.pick(seeds).cloned().unwrap_or_default();
            let from = rng.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(other.get(from..).unwrap_or_default());
        }
        // change a digit, which keeps most texts valid
        _ => {
            let digits: Vec<usize> = input
                .iter()
                .enumerate()
                .filter(|(_, c)| c.is_ascii_digit())
                .map(|(index, _)| index)
                .collect();
            let value = b'0' + u8::try_from(rng.below(10)).unwrap_or(0);
            if let Some(byte) = rng.pick(&digits).copied().and_then(|index| input.get_mut(index)) {
                *byte = value;
            }
        }
    }
}
