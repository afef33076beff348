//! The store as a whole, on a real disk and on the simulated one.

mod store {
    pub mod basics;
    pub mod check;
    pub mod cold;
    pub mod companions;
    pub mod crash;
    pub mod damage;
    pub mod imported;
    pub mod index_memory;
    pub mod keys;
    pub mod piled_up;
    pub mod reclaim;
    pub mod sifted;
    pub mod support;
    pub mod sync_flush;
    pub mod window;
}
