//! How is the set of CPUs of this thread read and set?
#![expect(unsafe_code, reason = "sched_setaffinity")]

use std::io;

/// Bits in one word of a CPU mask.
const WORD_BITS: usize = u64::BITS as usize;
/// Words of the mask: 8192 CPUs, the most that a Linux kernel can be built for.
const WORDS: usize = 8192 / WORD_BITS;

pub(crate) fn get() -> io::Result<Vec<u32>> {
    let mut mask = [0_u64; WORDS];
    // SAFETY: `mask` is writable for the size given; the kernel writes at most that many bytes.
    let result = unsafe { libc::sched_getaffinity(0, size_of_val(&mask), mask.as_mut_ptr().cast()) };
    super::check(result)?;
    let cpus = (0_u32..).zip(
        mask.iter()
            .flat_map(|word| (0..WORD_BITS).map(move |bit| word >> bit & 1)),
    );
    Ok(cpus.filter(|(_, bit)| *bit == 1).map(|(cpu, _)| cpu).collect())
}

pub(crate) fn set(cpus: &[u32]) -> io::Result<()> {
    let mut mask = [0_u64; WORDS];
    for cpu in cpus {
        let index = usize::try_from(*cpu).map_err(io::Error::other)?;
        if let Some(word) = mask.get_mut(index / WORD_BITS) {
            *word |= 1 << (index % WORD_BITS);
        }
    }
    // SAFETY: `mask` is readable for the size given.
    super::check(unsafe { libc::sched_setaffinity(0, size_of_val(&mask), mask.as_ptr().cast()) }).map(drop)
}
