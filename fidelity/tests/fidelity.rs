//! A hundred packets through hosts of a fixed seed, and a hundred through drawn ones: the model says what the kernel does, or that
//! it can't know. What a drawn seed finds is printed with all that is needed to repeat it.

use anyhow::{Result, ensure};
use kvmtrace_fidelity::run::{Options, run};
use kvmtrace_tests::lab::can_test;
use kvmtrace_tests::lab::draw::Seed;

const PAIRS: u32 = 100;

fn agrees(seed: Seed) -> Result<()> {
    let mut out = Vec::new();
    let summary = run(Options { seed, pairs: PAIRS, only: None, verbose: false }, &mut out)?;
    let text = String::from_utf8_lossy(&out);
    ensure!(summary.pairs > PAIRS / 2, "only {} pairs were sent\n{text}", summary.pairs);
    ensure!(summary.contradictions == 0, "{text}");
    ensure!(summary.agree > summary.unknown, "the model knows little\n{text}");
    Ok(())
}

#[test]
fn the_model_agrees_with_the_kernel_on_known_hosts() -> Result<()> {
    if can_test("fidelity")? { agrees(Seed(1)) } else { Ok(()) }
}

#[test]
fn the_model_agrees_with_the_kernel_on_drawn_hosts() -> Result<()> {
    if can_test("fidelity")? { agrees(Seed::choose()?) } else { Ok(()) }
}
