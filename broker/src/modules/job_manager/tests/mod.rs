//! The job manager as an actor, over fakes of its neighbours.

mod fakes;
mod life;
mod requests;
mod restart;
mod speed;
