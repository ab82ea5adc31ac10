//! Does the whole flux-shell do what the reference says, against a broker of the test's own?

mod suite {
    pub(crate) mod broker;
    pub(crate) mod job;
    mod multi;
    mod mpi;
    mod options;
    mod single;
}
