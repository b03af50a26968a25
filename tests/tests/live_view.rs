//! `kvmtrace live` and `kvmtrace replay` in a real terminal: tmux runs the binary on a host with a real fault, keys are
//! typed, and what stands on the screen is read back.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that can't go on has failed; a skip is told")]
#![allow(clippy::disallowed_methods, reason = "the lab waits for real processes and real packets")]

use anyhow::{Context as _, Result, ensure};
use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::netns::Namespace;
use kvmtrace_tests::lab::plan::{Options, Plan};
use kvmtrace_tests::lab::process::{Background, wait_until};
use kvmtrace_tests::lab::{Lab, beside};
use kvmtrace_tests::product::Product;
use kvmtrace_tests::scenario::{Scenario, prepare};
use kvmtrace_tests::terminal::{PATIENCE, Terminal};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A host whose NIC has too small an MTU, and a guest that sends large packets.
struct Stage {
    product: Product,
    _traffic: Background,
    lab: Lab,
}

impl Stage {
    fn set(name: &str) -> Result<Option<Self>> {
        if !is_possible(&[])? {
            return Ok(None);
        }
        let scenario = Scenario::find("mtu/bridge-uplink")?;
        let mut lab = Lab::drawn(&scenario.lab, Seed::choose()?, name)?;
        prepare(&mut lab, &scenario)?;
        let target = lab.plan.lan.addresses.v4;
        let size = lab.plan.mtu - 28;
        let traffic = lab.guests[0].namespace.background(&format!("ping -q -n -M do -i 0.2 -s {size} {target}"))?;
        Ok(Some(Self { product: Product::find()?, _traffic: traffic, lab }))
    }

    /// The shell line that runs kvmtrace on the host.
    fn line(&self, arguments: &str) -> String {
        line(&self.lab.host, self.product.path(), arguments)
    }
}

/// There is a tmux, one is root, and these files are there.
fn is_possible(files: &[&Path]) -> Result<bool> {
    let tmux = Command::new("tmux").arg("-V").output().is_ok_and(|output| output.status.success());
    let possible = tmux && nix::unistd::geteuid().is_root() && files.iter().all(|file| file.is_file());
    if !possible {
        ensure!(std::env::var_os("CI").is_none(), "CI has tmux, runs as root and builds {files:?}");
        println!("SKIP: needs tmux and root, and {files:?} to be built");
    }
    Ok(possible)
}

fn line(host: &Namespace, binary: &Path, arguments: &str) -> String {
    format!("exec_in() {{ ip netns exec {} \"$@\"; }}; exec_in {} {arguments}", host.name(), binary.display())
}

#[test]
fn all_screens_of_a_host_with_an_mtu_black_hole() -> Result<()> {
    let Some(stage) = Stage::set("screens")? else { return Ok(()) };
    let terminal = Terminal::run("screens", &stage.line("live"))?;
    let plan = &stage.lab.plan;
    let (uplink, tap) = (plan.uplink.device.as_str(), plan.guests[0].tap.as_str());
    let walk = || -> Result<()> {
        // Who suffers, where, and what mends it, before any key.
        let cure = format!("ip link set dev {uplink} mtu");
        let hop = format!("┃{uplink}");
        terminal.sees(&[
            "✗ the guest loses traffic",
            "[1 Guests 1]",
            "┏veth",
            &hop,
            "bridge-mtu-exceeded here",
            &cure,
        ])?;
        // The header tells its own cost: never without the share of a CPU. Nothing lost and nothing missing is no news.
        let screen = terminal.sees(&["drops/s", "CPU "])?;
        ensure!(!screen.contains("events lost") && !screen.contains("degraded"), "{screen}");
        terminal.keys(&["y"])?;
        terminal.sees(&["asked the terminal to copy (OSC 52); x c"])?;
        let copied = terminal.tmux(&["show-buffer"])?;
        ensure!(copied.starts_with(&cure), "on the clipboard: {copied}");
        terminal.keys(&["2"])?;
        terminal.sees(&["[2 Flows", "icmp", "bridge-mtu"])?;
        terminal.keys(&["Enter"])?;
        terminal.sees(&["[3 Path]", "╭guest", "╭tap", "┏veth", "✗ bridge-mtu-exceeded here"])?;
        terminal.keys(&["4"])?;
        terminal.sees(&["[4 Incidents", "bridge-mtu-exceeded", &cure, "br_dev_queue_push_xmit"])?;
        terminal.keys(&["y"])?;
        terminal.sees(&["asked the terminal to copy (OSC 52); x c"])?;
        terminal.keys(&["5"])?;
        // The newest is under the cursor, until one goes to the first; that stays while others come in.
        terminal.sees(&["[5 Events]", "drop", &format!(" {uplink} "), "NOT_SPECIFIED in br_dev_queue_push"])?;
        terminal.keys(&["g"])?;
        terminal.sees(&["▸", "tracing began", "to the newest", " 1/"])?;
        let rows = |screen: &str| screen.rsplit(" 1/").next().and_then(|rows| rows.trim().parse::<u32>().ok());
        let before = rows(&terminal.screen()?).context("the footer tells the number of rows")?;
        let grown = || terminal.screen().is_ok_and(|screen| rows(&screen).is_some_and(|rows| rows > before));
        ensure!(wait_until(PATIENCE, grown), "no event came in while the first was looked at");
        terminal.sees(&["tracing began", " 1/"])?;
        terminal.keys(&["Home", "f"])?;
        ensure!(wait_until(PATIENCE, || terminal.screen().is_ok_and(|screen| !screen.contains("to the newest"))));
        terminal.keys(&["/"])?;
        terminal.keys(&["-l", "drop"])?;
        terminal.sees(&["/drop", "match"])?;
        terminal.keys(&["Enter", "Enter"])?;
        terminal.sees(&["NOT_SPECIFIED in br_dev_queue_push_xmit", "IPv4", "ICMP type 8"])?;
        terminal.keys(&["6"])?;
        terminal.sees(&["[6 Time]", "10 s a column", "begins: bridge-mtu-exceeded"])?;
        terminal.keys(&["?"])?;
        terminal.sees(&["filter as you type", "to copy the fix"])?;
        terminal.keys(&["?", "1", "Space"])?;
        terminal.sees(&["frozen"])?;
        terminal.tmux(&["resize-window", "-x", "40", "-y", "10"])?;
        terminal.sees(&["kvmtrace needs 60×16"])?;
        terminal.tmux(&["resize-window", "-x", "120", "-y", "40"])?;
        terminal.sees(&["[1 Guests 1]", tap])?;
        terminal.keys(&["Space"])?;
        // The mouse, as a terminal reports it: a tab, and the heading of the guests' column.
        terminal.keys(&["-l", "\u{1b}[<0;16;3M\u{1b}[<0;16;3m"])?;
        terminal.sees(&["[2 Flows", "VERDICT by worst▼"])?;
        terminal.keys(&["-l", "\u{1b}[<0;30;4M\u{1b}[<0;30;4m"])?;
        terminal.sees(&["GUEST▲"])?;
        terminal.keys(&["q"])?;
        terminal.is_given_back(0)?;
        Ok(())
    };
    let result = walk();
    terminal.print();
    result
}

#[test]
fn a_recording_made_on_the_screen_plays_on_the_screen() -> Result<()> {
    let Some(stage) = Stage::set("replay")? else { return Ok(()) };
    let directory = stage.lab.directory();
    let here = format!("cd {}; ", directory.display());
    let terminal = Terminal::run("record", &(here + &stage.line("live")))?;
    terminal.sees(&["[1 Guests 1]", "bridge-mtu"])?;
    terminal.keys(&["w"])?;
    terminal.sees(&["● rec"])?;
    std::thread::sleep(Duration::from_secs(4));
    terminal.keys(&["w"])?;
    ensure!(wait_until(PATIENCE, || terminal.screen().is_ok_and(|screen| !screen.contains("● rec"))));
    terminal.keys(&["q"])?;
    terminal.sees(&["ended with 0"])?;
    let recording = std::fs::read_dir(&directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "kvmtrace"))
        .context("no recording was written")?;
    let replay = Terminal::run("replay", &stage.line(&format!("replay {}", recording.display())))?;
    let walk = || -> Result<()> {
        replay.sees(&["playing 1x", "[1 Guests 1]"])?;
        replay.keys(&["n"])?;
        replay.sees(&["stopped 1x", "bridge-mtu"])?;
        replay.keys(&["t"])?;
        replay.keys(&["-l", "0"])?;
        replay.keys(&["Enter", "+"])?;
        replay.sees(&["stopped 2x", " 0s/"])?;
        replay.keys(&["Space", "4"])?;
        replay.sees(&["[4 Incidents 1]", "bridge-mtu-exceeded"])?;
        replay.keys(&["q"])?;
        replay.is_given_back(0)?;
        Ok(())
    };
    let result = walk();
    replay.print();
    result
}

#[test]
fn what_is_selected_is_saved_as_text_json_and_packets_while_kvmtrace_is_confined() -> Result<()> {
    let Some(stage) = Stage::set("saves")? else { return Ok(()) };
    let directory = stage.lab.directory();
    let terminal = Terminal::run("saves", &format!("cd {}; {}", directory.display(), stage.line("live")))?;
    terminal.sees(&["[1 Guests 1]", "bridge-mtu"])?;
    terminal.keys(&["4"])?;
    terminal.sees(&["[4 Incidents", "bridge-mtu-exceeded"])?;
    let file = |extension: &str| -> Result<std::path::PathBuf> {
        let mut files = std::fs::read_dir(&directory)?.filter_map(|entry| Some(entry.ok()?.path()));
        files.find(|path| path.extension().is_some_and(|found| found == extension)).context("no such file")
    };
    for form in ["t", "j", "p", "c"] {
        terminal.keys(&["x"])?;
        terminal.sees(&["save bridge-mtu-exceeded as", "t text"])?;
        terminal.keys(&[form])?;
        let words = if form == "c" { "saved; tmux takes it by: tmux load-buffer /" } else { "saved /" };
        terminal.sees(&[words])?;
    }
    let cure = format!("ip link set dev {} mtu", stage.lab.plan.uplink.device);
    let text = std::fs::read_to_string(file("txt")?)?;
    ensure!(text.contains("bridge-mtu-exceeded") && text.contains(&cure), "{text}");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(file("txt")?)?);
    ensure!(mode & 0o777 == 0o600, "{mode:o}");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(file("json")?)?)?;
    ensure!(json["schema"] == "kvmtrace/verdict/2" && json["incidents"][0]["cause"] == "bridge-mtu-exceeded", "{json}");
    let is_of_it = |flow: &serde_json::Value| flow["incident"] == json["incidents"][0]["id"];
    let flows = json["flows"].as_array().context("flows")?;
    ensure!(!flows.is_empty() && flows.iter().all(is_of_it), "{json}");
    let packets = std::fs::read(file("pcapng")?)?;
    ensure!(packets.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]) && packets.len() > 500, "{} bytes", packets.len());
    ensure!(std::fs::read_to_string(file("sh")?)?.starts_with(&cure));
    terminal.keys(&["q"])?;
    terminal.is_given_back(0)?;
    Ok(())
}

#[test]
fn a_probe_and_a_fix_run_on_the_terminal_and_the_live_view_comes_back() -> Result<()> {
    let Some(stage) = Stage::set("errands")? else { return Ok(()) };
    let terminal = Terminal::run("errands", &stage.line("live"))?;
    let plan = &stage.lab.plan;
    let (target, tap) = (plan.lan.addresses.v4.to_string(), plan.guests[0].tap.as_str());
    let walk = || -> Result<()> {
        // A probe needs the guest's address, which the trace has soon seen.
        let own = plan.guests[0].port.addresses.v4.to_string();
        terminal.sees(&["[1 Guests 1]", "bridge-mtu", &own])?;
        terminal.keys(&["p"])?;
        terminal.sees(&[" to gateway icmp", "udp PORT"])?;
        terminal.keys(&["C-u"])?;
        terminal.keys(&["-l", &format!("{target} --size 9000")])?;
        terminal.keys(&["Enter"])?;
        terminal.sees(&["is no probe"])?;
        terminal.keys(&["p", "C-u"])?;
        terminal.keys(&["-l", &format!("{target} icmp")])?;
        terminal.keys(&["Enter"])?;
        terminal.sees(&[&format!("{tap} to {target} icmp"), "Enter goes back"])?;
        terminal.keys(&["Enter"])?;
        // Its journey is in the path picture: the live view has traced it, too.
        let screen = terminal.sees(&["[3 Path]", "icmp echo", &target, "╭guest"])?;
        // The programs of the probe's own trace, beside those of this one, take nothing away.
        ensure!(!screen.contains("degraded"), "{screen}");
        terminal.keys(&["4"])?;
        terminal.sees(&["[4 Incidents", "bridge-mtu-exceeded", "f fix"])?;
        terminal.keys(&["f"])?;
        terminal.sees(&["kvmtrace fix ", "ip link set dev", "[y/N]"])?;
        terminal.keys(&["n", "Enter"])?;
        terminal.sees(&["nothing was changed", "Enter goes back"])?;
        terminal.keys(&["Enter"])?;
        terminal.sees(&["[4 Incidents", "bridge-mtu-exceeded"])?;
        // Ctrl-C is for the fix, not for the live view. What was on the terminal before is still there.
        let seen = |text: &str, times: usize| {
            wait_until(PATIENCE, || terminal.screen().is_ok_and(|screen| screen.matches(text).count() == times))
        };
        terminal.keys(&["f"])?;
        ensure!(seen("[y/N]", 2), "{}", terminal.screen()?);
        terminal.keys(&["C-c"])?;
        ensure!(seen("Enter goes back", 3), "{}", terminal.screen()?);
        terminal.keys(&["Enter"])?;
        let screen = terminal.sees(&["[4 Incidents", "bridge-mtu-exceeded"])?;
        ensure!(!screen.contains("degraded"), "{screen}");
        // Nothing is left when the live view is killed in the midst of it.
        terminal.tmux(&["resize-window", "-x", "120", "-y", "60"])?;
        terminal.keys(&["f"])?;
        ensure!(seen("[y/N]", 3), "{}", terminal.screen()?);
        let live = of_the_stage(&stage)?.into_iter().min().context("kvmtrace runs")?;
        nix::sys::signal::kill(live, nix::sys::signal::Signal::SIGKILL)?;
        let gone = || of_the_stage(&stage).is_ok_and(|pids| pids.is_empty());
        ensure!(wait_until(PATIENCE, gone), "left behind: {:?}", of_the_stage(&stage)?);
        Ok(())
    };
    let result = walk();
    terminal.print();
    result
}

#[test]
fn signals_and_a_vanished_terminal_end_it_in_order() -> Result<()> {
    let Some(stage) = Stage::set("ends")? else { return Ok(()) };
    for signal in ["TERM", "HUP", "INT"] {
        let terminal = Terminal::run(signal, &stage.line("live"))?;
        terminal.sees(&["[1 Guests 1]"])?;
        let pid = running(&stage)?.context("kvmtrace runs")?;
        nix::sys::signal::kill(pid, format!("SIG{signal}").parse::<nix::sys::signal::Signal>()?)?;
        terminal.is_given_back(0).with_context(|| format!("after SIG{signal}"))?;
        ensure!(running(&stage)?.is_none(), "it runs after SIG{signal}");
    }
    let terminal = Terminal::run("vanish", &stage.line("live"))?;
    terminal.sees(&["[1 Guests 1]"])?;
    drop(terminal);
    ensure!(
        wait_until(Duration::from_secs(10), || running(&stage).is_ok_and(|pid| pid.is_none())),
        "it outlives its terminal"
    );
    Ok(())
}

/// The kvmtrace that runs on the stage's host.
fn running(stage: &Stage) -> Result<Option<nix::unistd::Pid>> {
    Ok(of_the_stage(stage)?.into_iter().min())
}

/// All processes of kvmtrace on the stage's host.
fn of_the_stage(stage: &Stage) -> Result<Vec<nix::unistd::Pid>> {
    let output = Command::new("ip").args(["netns", "pids", stage.lab.host.name()]).output()?;
    let pids = String::from_utf8(output.stdout)?;
    let mine =
        |pid: &&str| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path == stage.product.path());
    pids.split_whitespace().filter(mine).map(|pid| Ok(nix::unistd::Pid::from_raw(pid.parse()?))).collect()
}

#[test]
fn the_terminals_colours_are_kept_to() -> Result<()> {
    let Some(stage) = Stage::set("colours")? else { return Ok(()) };
    let line = stage.line("live");
    // True colours, the 256 of xterm, the 16 that all have; none. Each with a sequence that only it has.
    for (name, environment, has, has_not) in [
        ("true", "COLORTERM=truecolor", Some("38;2;"), None),
        ("indexed", "COLORTERM= TERM=tmux-256color", Some("38;5;209"), Some("38;2;")),
        ("sixteen", "COLORTERM= TERM=xterm-16color", Some("38;5;9m"), Some("38;5;209")),
        ("plain", "NO_COLOR=1", None, Some("\u{1b}[38;")),
    ] {
        let terminal = Terminal::run(name, &format!("export {environment}; {line}"))?;
        terminal.sees(&["✗ the guest loses traffic", "bridge-mtu-exceeded here"])?;
        let screen = terminal.coloured()?;
        ensure!(has.is_none_or(|sequence| screen.contains(sequence)), "{name} lacks {has:?}: {screen:?}");
        ensure!(has_not.is_none_or(|sequence| !screen.contains(sequence)), "{name} has {has_not:?}: {screen:?}");
    }
    let dumb = Terminal::run("dumb", &format!("export TERM=dumb; {line}"))?;
    let screen = dumb.sees(&["ended with 2"])?;
    ensure!(screen.contains("TERM is") && screen.contains("kvmtrace watch"), "{screen}");
    Ok(())
}

#[test]
fn without_a_terminal_it_says_so_and_ends() -> Result<()> {
    let Ok(product) = Product::find() else { return Ok(()) };
    for command in [&["live"][..], &["replay", "/dev/null"]] {
        let output = Command::new(product.path()).args(command).stdin(std::process::Stdio::null()).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2) && error.lines().count() == 1, "{command:?}: {error}");
        ensure!(error.contains("needs a terminal"), "{error}");
        ensure!(output.stdout.is_empty());
    }
    Ok(())
}

#[test]
fn a_panic_gives_the_terminal_back_and_can_be_read() -> Result<()> {
    let example = beside("lab")?.with_file_name("examples").join("live_view_panics");
    if !is_possible(&[&example])? {
        return Ok(());
    }
    for (place, status) in [("reading", 101), ("judging", 1)] {
        let terminal = Terminal::run(place, &format!("RUST_BACKTRACE=0 {} {place}", example.display()))?;
        terminal.sees(&["[1 Guests 0]"])?;
        let screen = terminal.is_given_back(status)?;
        ensure!(screen.contains("panics as planned"), "the panic's message is not seen\n{screen}");
        ensure!(!screen.contains("Guests"), "the screen stays\n{screen}");
    }
    Ok(())
}

/// Names that a guest may bear, since QEMU takes any: control sequences, marks that turn the direction of writing, wide
/// characters, and one that is longer than any screen.
fn hostile_names() -> [String; 4] {
    [
        "\u{1b}]0;owned\u{7}\u{1b}]52;c;b3duZWQ=\u{7}\u{1b}[2J\u{1b}[31;5m\u{9b}1mred\r\n\t\u{8}".to_owned(),
        "\u{202e}gnip\u{2066}\u{200f}\u{61c}left\u{200b}\u{feff}".to_owned(),
        "漢字漢字👩\u{200d}👩\u{200d}👧e\u{301}שלום﷽".to_owned(),
        "x".repeat(10_000),
    ]
}

#[test]
fn what_a_guest_calls_itself_moves_colours_and_rings_nothing() -> Result<()> {
    let Ok(product) = Product::find() else { return Ok(()) };
    if !is_possible(&[])? {
        return Ok(());
    }
    let options = Options { guests: hostile_names().len(), ..Options::default() };
    let mut plan =
        Plan::drawn(&format!("kt{}hostile", std::process::id()), &options, &mut Seed::choose()?.draw("hostile"));
    for (guest, name) in plan.guests.iter_mut().zip(hostile_names()) {
        guest.name = name;
    }
    let lab = Lab::build(plan)?;
    let target = &lab.plan.lan.addresses.v4;
    let ping = |guest: &kvmtrace_tests::lab::Guest| guest.namespace.background(&format!("ping -q -i 0.2 {target}"));
    let _traffic = lab.guests.iter().map(ping).collect::<Result<Vec<_>>>()?;
    let raw = lab.directory().join("raw");
    // All that the program writes is kept, from its first byte on.
    let waiting = format!("read _; {}", line(&lab.host, product.path(), "live"));
    let terminal = Terminal::run("hostile", &waiting)?;
    let title = terminal.tmux(&["display-message", "-p", "#{pane_title}"])?;
    terminal.tmux(&["pipe-pane", "-o", &format!("cat > {}", raw.display())])?;
    terminal.keys(&["Enter"])?;
    terminal.sees(&["[1 Guests 4]", "all 4 guests are well", "xxxxxxx…"])?;
    for (key, screen) in
        [("1", "[1 Guests"), ("2", "[2 Flows"), ("Enter", "[3 Path]"), ("4", "[4 Incidents"), ("5", "[5 Events]")]
    {
        terminal.keys(&[key])?;
        let seen = terminal.sees(&[screen, " q quit"])?;
        ensure!(seen.lines().count() <= 24 && seen.starts_with(" kvmtrace "), "{seen}");
        // Whatever the guest's name, its tap stands in the column of its heading.
        if let Some((heading, column)) = [("1", "PATH"), ("5", "DEVICE")].into_iter().find(|(at, _)| *at == key) {
            // The guests' first packets take a moment to come.
            wait_until(PATIENCE, || terminal.screen().is_ok_and(|screen| columns_hold(&lab, &screen, column).is_ok()));
            columns_hold(&lab, &terminal.screen()?, column).with_context(|| format!("screen {heading}"))?;
        }
    }
    terminal.print();
    ensure!(terminal.tmux(&["display-message", "-p", "#{pane_title}"])? == title, "the title has changed");
    ensure!(terminal.tmux(&["show-buffer"]).is_err(), "something has been put on the clipboard");
    terminal.keys(&["q"])?;
    terminal.is_given_back(0)?;
    let raw = String::from_utf8(std::fs::read(raw)?).context("not even UTF-8 was written")?;
    for harm in ["\u{7}", "\u{1b}]", "\u{9b}", "\u{202e}", "\u{2066}", "\u{200b}", "\u{301}", "漢", "\u{1b}[31;5m"] {
        ensure!(!raw.contains(harm), "{harm:?} reached the terminal");
    }
    ensure!(raw.contains("[3 Path]") && raw.contains(&lab.plan.guests[0].tap), "this is not all that was written");
    Ok(())
}

/// Each guest's tap begins where the heading of its column does.
fn columns_hold(lab: &Lab, screen: &str, title: &str) -> Result<()> {
    let column = |line: &str, text: &str| line.find(text).map(|bytes| line[..bytes].chars().count());
    let heading = screen.lines().find_map(|line| column(line, title)).context("no such heading")?;
    let mut seen = 0;
    for guest in &lab.plan.guests {
        for line in screen.lines().skip(4).filter(|line| line.starts_with("  ") || line.starts_with("▸ ")) {
            if let Some(place) = column(line, &guest.tap).filter(|place| *place <= heading + 20) {
                ensure!(place == heading, "{} stands in column {place}, not {heading}\n{screen}", guest.tap);
                seen += 1;
            }
        }
    }
    ensure!(seen >= 4, "only {seen} rows tell of a tap\n{screen}");
    Ok(())
}
