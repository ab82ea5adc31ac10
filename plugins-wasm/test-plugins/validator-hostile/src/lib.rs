//! A validator that does what the job's jobspec text says: `loop`, `bomb`, `trap`, `recurse`, `huge-refusal`, `flood`, `errno-0`.

use std::hint::black_box;

use flux_policy_sdk::{Host, Job, Level, Refusal, Validator};

flux_policy_sdk::export_validator!(Hostile);

/// The policy; counts its calls to show when an instance is a new one.
#[derive(Debug)]
pub struct Hostile {
    calls: u32,
}

impl Validator for Hostile {
    fn configure(host: &dyn Host) -> Result<Self, Refusal> {
        match host.config("hostile.configure").as_deref() {
            Some("\"refuse\"") => Err(Refusal {
                errnum: 1,
                text: "will not".to_owned(),
            }),
            Some("\"trap\"") => std::process::abort(),
            _ => Ok(Hostile { calls: 0 }),
        }
    }

    fn validate(&mut self, host: &dyn Host, job: &dyn Job) -> Result<(), Refusal> {
        self.calls += 1;
        match job.jobspec().as_str() {
            "loop" => loop {
                black_box(self.calls);
            },
            "bomb" => {
                let mut hoard: Vec<Vec<u8>> = Vec::new();
                loop {
                    hoard.push(black_box(vec![1; 1 << 20]));
                }
            }
            "trap" => std::process::abort(),
            "recurse" => Err(Refusal {
                errnum: recurse(black_box(u64::MAX)),
                text: String::new(),
            }),
            "huge-refusal" => Err(Refusal {
                errnum: 22,
                text: "x".repeat(40 << 20),
            }),
            "long-refusal" => Err(Refusal {
                errnum: 22,
                text: "é".repeat(100_000),
            }),
            "errno-0" => Err(Refusal {
                errnum: 0,
                text: "zero".to_owned(),
            }),
            "flood" => {
                for line in 0..100_000 {
                    host.log(Level::Err, &format!("line {line}\nwith a break"));
                }
                Ok(())
            }
            "huge-log" => {
                host.log(Level::Err, &"x".repeat(8 << 20));
                Ok(())
            }
            "calls" => Err(Refusal {
                errnum: 22,
                text: self.calls.to_string(),
            }),
            _ => Ok(()),
        }
    }
}

/// Uses the stack until there is none.
fn recurse(depth: u64) -> u32 {
    let here = black_box([depth; 64]);
    if depth == 0 {
        return 0;
    }
    recurse(depth - 1) + u32::from(here[black_box(7)] == 3)
}
