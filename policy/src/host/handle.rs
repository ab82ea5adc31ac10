//! What does a service hold to talk to its plugins?

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::PolicyError;

use super::message::{Answer, Command};
use super::room::{HostConfig, Room};
use super::thread::{Mailbox, PolicyThread};

/// Called on the policy thread after answers were put down; must be quick and must not block. A service wakes its task with it.
pub type Wake = Box<dyn Fn() + Send>;

/// Commands were not taken: the thread is behind by its whole inbox, or has ended. They come back to be sent later.
pub struct SendError {
    /// What was not taken.
    pub commands: Vec<Command>,
    /// True when the thread has ended and never will.
    pub gone: bool,
}

/// A service's plugins and the way to them. Dropping it drops the plugins.
pub struct PolicyHost {
    way: Way,
}

enum Way {
    Thread {
        thread: Arc<PolicyThread>,
        id: u64,
        mailbox: Arc<Mailbox>,
    },
    Inline {
        room: Box<Room>,
        answers: Mutex<Vec<Answer>>,
    },
}

impl PolicyHost {
    /// Makes a host whose plugins live on the policy thread, which all hosts of the process share and the first one starts.
    ///
    /// Returns at once; loading happens on the thread and ends with [`Answer::Ready`]. Commands may be sent before. `wake` is called each
    /// time there is something to [`receive`](Self::receive).
    ///
    /// # Errors
    /// When the thread or the engine cannot be started.
    pub fn spawn(config: HostConfig, wake: Wake) -> Result<PolicyHost, PolicyError> {
        let thread = PolicyThread::shared()?;
        let (id, mailbox) = thread.attach(config, wake)?;
        Ok(PolicyHost {
            way: Way::Thread { thread, id, mailbox },
        })
    }

    /// Makes a host whose plugins run in the caller's thread, inside [`send`](Self::send): for tools and tests. In a broker a plugin that
    /// loops would stop everything for its whole deadline.
    ///
    /// # Errors
    /// When the engine cannot be started or a plugin cannot be loaded.
    pub fn inline(config: HostConfig) -> Result<PolicyHost, PolicyError> {
        let mut answers = vec![Answer::Ready(Ok(()))];
        let room = Room::load(config, &mut answers)?;
        Ok(PolicyHost {
            way: Way::Inline {
                room: Box::new(room),
                answers: Mutex::new(answers),
            },
        })
    }

    /// Sends a batch. `now` is the time of the event that is behind it, in seconds since the epoch. Many commands in one batch cost one
    /// crossing of threads.
    ///
    /// # Errors
    /// [`SendError`] when the inbox is full or the thread has ended; the commands come back.
    pub fn send(&mut self, now: f64, commands: Vec<Command>) -> Result<(), SendError> {
        match &mut self.way {
            Way::Thread { thread, id, .. } => thread.send(*id, now, commands),
            Way::Inline { room, answers } => {
                let answers = answers.get_mut().unwrap_or_else(PoisonError::into_inner);
                room.run(now, commands, answers);
                while room.more(answers) {}
                Ok(())
            }
        }
    }

    /// Appends all answers so far to `out` and returns how many.
    pub fn receive(&mut self, out: &mut Vec<Answer>) -> usize {
        let before = out.len();
        match &mut self.way {
            Way::Thread { mailbox, .. } => mailbox.take(out),
            Way::Inline { answers, .. } => {
                out.append(answers.get_mut().unwrap_or_else(PoisonError::into_inner))
            }
        }
        out.len() - before
    }
}

impl Drop for PolicyHost {
    fn drop(&mut self) {
        if let Way::Thread { thread, id, .. } = &self.way {
            thread.detach(*id);
        }
    }
}

impl fmt::Debug for PolicyHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.way {
            Way::Thread { .. } => "thread",
            Way::Inline { .. } => "inline",
        };
        f.debug_struct("PolicyHost")
            .field("way", &way)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError")
            .field("commands", &self.commands.len())
            .field("gone", &self.gone)
            .finish()
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.gone {
            "the policy thread has ended"
        } else {
            "the policy thread's inbox is full"
        })
    }
}

impl std::error::Error for SendError {}
