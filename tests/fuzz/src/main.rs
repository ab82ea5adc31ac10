//! Does any byte sequence make a decoder panic, hang, or take memory out of proportion?
//!
//! Usage: `flux-fuzz [--list] [--seconds N] [--seed N] [--target NAME]... [--corpus DIR] [--replay FILE]`
//!
//! Replays `corpus/<target>/*`, then mutates for N seconds (default 1), for each target in turn; `--list` prints the names
//! of the targets. The seed is printed; equal seeds give equal inputs. A failing input is saved in `failures/` beside the corpus, exit code 1.

mod mutate;
mod sys;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mutate::{Rng, mutate};
use targets::{TARGETS, Target};

/// Memory that any input may take, whatever its size.
const MEMORY_BASE: usize = 64 << 10;
/// Time of computing that one input may take.
const TIME_MAX: Duration = Duration::from_secs(2);

struct Options {
    list: bool,
    seconds: u64,
    seed: u64,
    targets: Vec<String>,
    corpus: PathBuf,
    replay: Option<PathBuf>,
}

fn options() -> Result<Options, String> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut options = Options {
        list: false,
        seconds: 1,
        seed: u64::from(clock.subsec_nanos()),
        targets: Vec::new(),
        corpus: Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"),
        replay: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        if option == "--list" {
            options.list = true;
            continue;
        }
        let value = arguments
            .next()
            .ok_or_else(|| format!("{option} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{option} needs a number"));
        match option.as_str() {
            "--seconds" => options.seconds = number()?,
            "--seed" => options.seed = number()?,
            "--target" => options.targets.push(value),
            "--corpus" => options.corpus = value.into(),
            "--replay" => options.replay = Some(value.into()),
            _ => return Err(format!("unknown option {option}")),
        }
    }
    Ok(options)
}

/// Runs one input; returns why it fails.
fn check(target: &Target, input: &[u8]) -> Result<(), String> {
    let started = sys::computed();
    let mut outcome = Ok(());
    let peak = sys::peak_of(|| {
        outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default()
        });
    });
    outcome.map_err(|text| format!("panic: {text}"))?;
    let limit = MEMORY_BASE + target.memory_factor * input.len();
    if peak > limit {
        return Err(format!(
            "{peak} bytes of memory for {} bytes of input (limit {limit})",
            input.len()
        ));
    }
    let elapsed = sys::computed().saturating_sub(started);
    if elapsed > TIME_MAX {
        return Err(format!("{elapsed:?} for {} bytes of input", input.len()));
    }
    Ok(())
}

fn seeds(directory: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

/// Saves a failing input and reports it.
fn fail(options: &Options, target: &Target, input: &[u8], why: &str) {
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
    });
    let directory = options.corpus.parent().unwrap_or(Path::new(".")).join("failures");
    let path = directory.join(format!("{}-{hash:016x}", target.name));
    let saved = std::fs::create_dir_all(&directory).and_then(|()| std::fs::write(&path, input));
    eprintln!("{}: FAILED: {why}", target.name);
    match saved {
        Ok(()) => eprintln!("{}: input saved in {}", target.name, path.display()),
        Err(err) => eprintln!("{}: cannot save input: {err}", target.name),
    }
}

/// Fuzzes one target; returns the number of executions, or nothing after a failure.
fn fuzz(options: &Options, target: &Target, time: Duration) -> Option<u64> {
    let mut pool = seeds(&options.corpus.join(target.name));
    let replayed = pool.len();
    for input in &pool {
        if let Err(why) = check(target, input) {
            fail(options, target, input, &why);
            return None;
        }
    }
    pool.push(Vec::new());
    let name_seed = target.name.bytes().fold(options.seed, |seed, c| {
        seed.wrapping_mul(31).wrapping_add(u64::from(c))
    });
    let mut rng = Rng::new(name_seed);
    let started = Instant::now();
    let mut executions = 0;
    while started.elapsed() < time {
        // look at the clock only now and then
        for _execution in 0..64 {
            let input = mutate(&mut rng, &pool);
            if let Err(why) = check(target, &input) {
                fail(options, target, &input, &why);
                return None;
            }
            executions += 1;
        }
    }
    println!(
        "{:<14} {replayed:>4} replayed {executions:>9} executions  ok",
        target.name
    );
    Some(executions)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(text) => {
            eprintln!("flux-fuzz: {text}");
            return ExitCode::from(2);
        }
    };
    let chosen: Vec<&Target> = TARGETS
        .iter()
        .filter(|target| options.targets.is_empty() || options.targets.iter().any(|name| name == target.name))
        .collect();
    if chosen.is_empty() {
        eprintln!("flux-fuzz: no such target; targets are:");
        TARGETS.iter().for_each(|target| eprintln!("  {}", target.name));
        return ExitCode::from(2);
    }
    if options.list {
        chosen.iter().for_each(|target| println!("{}", target.name));
        return ExitCode::SUCCESS;
    }
    if let Some(path) = &options.replay {
        let Ok(input) = std::fs::read(path) else {
            eprintln!("flux-fuzz: cannot read {}", path.display());
            return ExitCode::from(2);
        };
        let failures = chosen.iter().filter(|target| {
            let outcome = check(target, &input);
            println!("{}: {outcome:?}", target.name);
            outcome.is_err()
        });
        return ExitCode::from(u8::from(failures.count() > 0));
    }
    let names: Vec<_> = chosen.iter().map(|target| target.name).collect();
    println!("{}: seed {}", names.join(" "), options.seed);
    std::panic::set_hook(Box::new(|_| {}));
    let time = Duration::from_secs(options.seconds);
    let results: Vec<Option<u64>> = chosen.iter().map(|target| fuzz(&options, target, time)).collect();
    ExitCode::from(u8::from(results.contains(&None)))
}
