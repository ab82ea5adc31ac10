//! Which processes are the tasks of the job? (`proctable`, asked for by debuggers and `flux job hostpids`;
//! flux-core: src/shell/mpir, behaviour)
//!
//! The leader asks every other shell for its processes and answers when the last has answered.

use flux_client::{Message, NODEID_ANY};
use flux_formats::errno::ECANCELED;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ctx::{Ctx, Purpose};
use crate::task::Task;

/// Answer of the shell service `pids`: the processes of one shell.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pids {
    host: String,
    tasks: Vec<Pid>,
}

/// One task.
#[derive(Debug, Serialize, Deserialize)]
struct Pid {
    rank: u32,
    pid: u32,
}

impl Pids {
    /// Returns the processes of this shell.
    pub(crate) fn of(ctx: &Ctx, tasks: &[Task]) -> Self {
        let host = ctx.info.node().map(|node| node.host.clone()).unwrap_or_default();
        let pid = |task: &Task| Pid {
            rank: task.rank,
            pid: task.pid,
        };
        Pids {
            host,
            tasks: tasks.iter().map(pid).collect(),
        }
    }
}

/// One line of the table.
#[derive(Debug)]
struct Row {
    task: u32,
    pid: u32,
    host: String,
    broker_rank: u32,
}

/// A table that is not complete.
#[derive(Debug)]
struct Gather {
    number: u32,
    request: Message,
    left: usize,
    rows: Vec<Row>,
}

/// Tables that are not complete.
#[derive(Debug, Default)]
pub(crate) struct Proctables {
    count: u32,
    gathers: Vec<Gather>,
}

impl Proctables {
    /// Begins to answer a request; other shells than the leader answer with their own processes.
    pub(crate) fn on_request(&mut self, ctx: &mut Ctx, tasks: &[Task], request: Message) {
        let mut gather = Gather {
            number: self.count,
            request,
            left: 0,
            rows: Vec::new(),
        };
        gather.add(ctx, ctx.info.shell_rank, Pids::of(ctx, tasks));
        self.count = self.count.wrapping_add(1);
        if ctx.info.is_leader() {
            for shell_rank in 1..ctx.info.shell_size() {
                let topic = format!("{}.pids", ctx.info.service);
                let nodeid = ctx.info.broker_rank_of(shell_rank);
                let purpose = Purpose::Pids {
                    gather: gather.number,
                    shell_rank,
                };
                if nodeid != NODEID_ANY {
                    ctx.rpc(topic, nodeid, &json!({}), purpose);
                    gather.left += 1;
                }
            }
        }
        if gather.left == 0 {
            gather.answer(ctx);
        } else {
            self.gathers.push(gather);
        }
    }

    /// Takes the answer of another shell. One that cannot answer has probably ended: there is no table any more.
    pub(crate) fn on_pids(&mut self, ctx: &mut Ctx, number: u32, shell_rank: u32, response: &Message) {
        let Some(at) = self.gathers.iter().position(|gather| gather.number == number) else {
            return;
        };
        let pids = response.payload_json::<Pids>().ok();
        match (pids.filter(|_| response.errnum() == 0), self.gathers.get_mut(at)) {
            (Some(pids), Some(gather)) => {
                gather.add(ctx, shell_rank, pids);
                gather.left -= 1;
                if gather.left == 0 {
                    self.gathers.swap_remove(at).answer(ctx);
                }
            }
            _ => {
                let gather = self.gathers.swap_remove(at);
                // a requestor that is gone needs no answer
                let _sent = ctx.handle.respond_error(&gather.request, ECANCELED, "");
            }
        }
    }
}

impl Gather {
    fn add(&mut self, ctx: &Ctx, shell_rank: u32, pids: Pids) {
        let broker_rank = ctx.info.broker_rank_of(shell_rank);
        self.rows.extend(pids.tasks.into_iter().map(|task| Row {
            task: task.rank,
            pid: task.pid,
            host: pids.host.clone(),
            broker_rank,
        }));
    }

    fn answer(mut self, ctx: &mut Ctx) {
        self.rows.sort_by_key(|row| row.task);
        let program = ctx.info.command.first().map(String::as_str).unwrap_or_default();
        let table = encode(&self.rows, program);
        // a requestor that is gone needs no answer
        let _sent = ctx.handle.respond(&self.request, Some(&table));
    }
}

/// Returns the table as clients read it: lists of names, and of numbers each as difference from the one before.
fn encode(rows: &[Row], program: &str) -> Value {
    let deltas = |number: &dyn Fn(&Row) -> u32| {
        let mut before = 0;
        let mut delta = |row: &Row| {
            let now = i64::from(number(row));
            now - std::mem::replace(&mut before, now)
        };
        rows.iter().map(&mut delta).collect::<Vec<i64>>()
    };
    json!({
        "hosts": rows.iter().map(|row| row.host.as_str()).collect::<Vec<_>>(),
        "executables": rows.iter().map(|_| program).collect::<Vec<_>>(),
        "ids": deltas(&|row| row.task),
        "pids": deltas(&|row| row.pid),
        "ranks": deltas(&|row| row.broker_rank),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_differences() {
        let row = |task, pid, host: &str, broker_rank| Row {
            task,
            pid,
            host: host.to_owned(),
            broker_rank,
        };
        let rows = [row(0, 500, "a1", 3), row(1, 490, "a1", 3), row(2, 491, "a2", 1)];
        assert_eq!(
            encode(&rows, "prog"),
            json!({
                "hosts": ["a1", "a1", "a2"], "executables": ["prog", "prog", "prog"], "ids": [0, 1, 1],
                "pids": [500, -10, 1], "ranks": [3, 0, -2],
            })
        );
        let empty = json!({"hosts": [], "executables": [], "ids": [], "pids": [], "ranks": []});
        assert_eq!(encode(&[], "prog"), empty);
    }
}
