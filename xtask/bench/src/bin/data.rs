//! Measures the data plane side by side with others.
//!
//! Never here: an assertion about speed. Begun by `cargo xtask bench`.

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    bench::data::run(&args)
}
