pub fn experiment() -> lab::Experiment {
    #[derive(clap::Args)] struct Params {}
    lab::Experiment::new("redis-away", "todo todo todo todo todo", &[], |_: Params, _: lab::Lab| async { Ok(()) })
}
