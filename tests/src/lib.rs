//! End-to-end, compatibility and hostile test suites.
