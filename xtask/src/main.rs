//! Tasks of this project: `cargo xtask --help` lists them. Each works from a fresh clone.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a task runner talks to its caller")]

mod ci;
mod ebpf;
mod fuzz;
mod kernels;
mod layers;
mod packages;
mod product;
mod setup;
mod shell;
mod unpacked;
mod vm;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

/// Tasks of the kvmtrace project. Each works from a fresh clone: what is missing is installed first.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show kvmtrace at work: on this host's guests if there are any, else in the lab
    Demo,
    /// Build everything and run every test; arguments go to `cargo nextest run`
    Test {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Build kvmtrace and run it as root with these arguments
    Run {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Build kvmtrace with its BPF programs inside
    Build {
        /// Optimised, as for an installation
        #[arg(long)]
        release: bool,
    },
    /// Play with the lab of guests, networks and faults, as root: `lab list`, `lab up NAME`, `lab down`
    Lab {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run every fault of the lab and print the table: cause, place, cure; `--filter NAME`, `--seed N`, `--runs N`
    Matrix {
        /// Under this kernel (5.10, 6.1, 6.12, …) in QEMU
        #[arg(long, value_name = "KERNEL")]
        vm: Option<String>,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Compare the model of the packet path with the kernel, packet by packet; `--seed N`, `--pairs N`, `--only HOST`
    Fidelity {
        /// Under this kernel (6.1, 6.12, …) in QEMU
        #[arg(long, value_name = "KERNEL")]
        vm: Option<String>,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run a command as root under another kernel, in QEMU: `vm 6.1 -- uname -r`
    Vm {
        /// The kernel's version: 5.10, 6.1, 6.12, or a newer one that Debian has
        kernel: String,
        /// The command; it runs in this directory, and what it writes is thrown away
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Run the programs' tests and the core scenarios under Debian's kernels 5.10, 6.1 and 6.12
    Kernels,
    /// Measure what tracing costs: per packet in the kernel, and in forwarded packets per second
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Feed broken recordings to reader, decoder, pipeline and exporters, and broken texts to all that reads a host, for so many
    /// seconds altogether
    Fuzz {
        /// How long
        #[arg(default_value_t = 60)]
        seconds: u32,
    },
    /// Draw the README's pictures of the live view into docs/img
    Screenshots,
    /// Install what is missing to build, test and play
    Setup,
    /// Build the BPF programs
    Ebpf,
    /// Check which module knows which, and where aya, ratatui and unsafe code appear
    Layers,
    /// All checks but the tests: format, layers, lints, documentation, dependencies
    Check,
    /// All checks, then other kernels, then all tests
    Ci,
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Demo => return product::demo(),
        Task::Test { arguments } => return product::test(&arguments),
        Task::Run { arguments } => return product::run(&arguments),
        Task::Build { release } => println!("{}", product::build(release)?.display()),
        Task::Lab { arguments } => return product::lab(&arguments),
        Task::Matrix { vm: Some(kernel), arguments } => return product::matrix_in_vm(&kernel, &arguments),
        Task::Matrix { vm: None, mut arguments } => {
            arguments.insert(0, "matrix".into());
            return product::lab(&arguments);
        }
        Task::Fidelity { vm: Some(kernel), arguments } => return product::fidelity_in_vm(&kernel, &arguments),
        Task::Fidelity { vm: None, arguments } => return product::fidelity(&arguments),
        Task::Kernels => {
            product::build_for_tests()?;
            kernels::check()?;
        }
        Task::Vm { kernel, command } => return vm::run(&kernel, &command),
        Task::Bench { arguments } => return product::bench(&arguments),
        Task::Fuzz { seconds } => fuzz::run(seconds)?,
        Task::Screenshots => product::screenshots()?,
        Task::Setup => {
            setup::ensure(setup::Need::Test)?;
            packages::ensure(&product::target_directory());
            eprintln!("xtask: everything is here");
        }
        Task::Ebpf => println!("{}", ebpf::build()?.display()),
        Task::Layers => layers::check()?,
        Task::Check => ci::checks()?,
        Task::Ci => ci::all()?,
    }
    Ok(ExitCode::SUCCESS)
}
