//! What a user sees, through the real programs. One file per word.

mod attr;
mod boot;
mod config;
mod dmesg;
mod event;
mod exec;
mod guest;
mod help;
mod job;
mod kvs;
mod launch;
mod loss;
mod module;
mod mpi;
mod overlay;
mod ping;
mod queue;
mod refuse;
mod resource;
mod run;
mod shutdown;
mod state;
mod submit;
mod tools;
