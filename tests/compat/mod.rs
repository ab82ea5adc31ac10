//! Does the broker speak the wire of flux-core 0.88, and does it survive those who do not?

mod hostile;
mod wire;
