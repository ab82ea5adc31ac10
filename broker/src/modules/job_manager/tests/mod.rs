//! The job manager as an actor, over fakes of its neighbours.

pub(crate) mod fakes;
mod index;
mod life;
mod pipeline;
mod requests;
mod restart;
mod speed;
mod taps;
