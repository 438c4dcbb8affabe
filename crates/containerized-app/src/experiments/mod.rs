//! Which claims does this answer make?

mod containers;
pub mod fixture;
pub mod python;

mod cpu;
mod draining;
mod flask;
mod health;
mod layers;
mod linters;
pub mod manifests;
mod memory;
mod reproducible;
mod root;
mod secrets;
mod signals;
mod size;
mod start;
mod zombies;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<lab::Experiment> {
    vec![
        signals::experiment(),
        flask::experiment(),
        draining::experiment(),
        zombies::experiment(),
        health::experiment(),
        memory::experiment(),
        cpu::experiment(),
        root::experiment(),
        secrets::experiment(),
        layers::experiment(),
        size::experiment(),
        reproducible::experiment(),
        manifests::experiment(),
        linters::experiment(),
        start::experiment(),
    ]
}
