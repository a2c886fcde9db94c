//! Each `--help` ends with an example, and each example does what it says.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::sandbox::{PATIENCE, Sandbox, binary, interrupt};

/// Commands that go on until Ctrl-C are stopped after this long and must then say 0.
const GOES_ON: Duration = Duration::from_secs(8);

/// One example of one help page.
#[derive(Debug)]
struct Example {
    page: String,
    line: String,
    needs_server: bool,
}

/// `linnet … --help`, not wrapped.
async fn help(path: &[String]) -> String {
    let mut command = Command::new(binary());
    let output = command.args(path).arg("--help").env("COLUMNS", "100").output().await.unwrap();
    assert!(output.status.success(), "{path:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Names below `Commands:`.
fn subcommands(page: &str) -> Vec<String> {
    let mut lines = page.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.by_ref().take_while(|line| line.starts_with("  "));
    // Deeper lines continue a description.
    let names = names.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

fn examples(page: &str, path: &[String]) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let mut needs_server = None;
    for line in page.lines() {
        if let Some(kind) = line.strip_prefix("Example") {
            needs_server = Some(kind.contains("linnet dev"));
        } else if line.trim().is_empty() {
            needs_server = None;
        } else if let Some(needs_server) = needs_server {
            match (line.strip_prefix("    "), found.last_mut()) {
                (Some(_), Some(last)) => last.line = format!("{}\n{}", last.line, line.trim()),
                _ => found.push(Example { page: path.join(" "), line: line.trim().to_owned(), needs_server }),
            }
        }
    }
    found
}

/// Every example of every page, outermost first.
async fn collect() -> Vec<Example> {
    let (mut pages, mut all) = (vec![Vec::new()], Vec::new());
    while let Some(path) = pages.pop() {
        let page = help(&path).await;
        let found = examples(&page, &path);
        assert!(path.is_empty() || !found.is_empty(), "linnet {} --help has no example:\n{page}", path.join(" "));
        all.extend(found);
        for name in subcommands(&page) {
            let mut inner = path.clone();
            inner.push(name);
            pages.push(inner);
        }
    }
    all
}

#[tokio::test]
async fn every_example_runs() {
    let all = collect().await;
    assert!(all.len() >= 25, "{}", all.len());
    println!("{} examples", all.len());
    let (with, without): (Vec<_>, Vec<_>) = all.into_iter().partition(|example| example.needs_server);
    let alone = Sandbox::empty();
    for example in &without {
        run(&alone, example).await;
    }
    let sandbox = Sandbox::start().await;
    for example in &with {
        run(&sandbox, example).await;
    }
}

/// In a shell, as it would be pasted.
async fn run(sandbox: &Sandbox, example: &Example) {
    let tools = sandbox.path().join("bin");
    if !tools.exists() {
        std::fs::create_dir(&tools).unwrap();
        std::os::unix::fs::symlink(binary(), tools.join("linnet")).unwrap();
    }
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    // A shell in between would die of Ctrl-C itself.
    let exec = if example.line.starts_with("linnet ") && !example.line.contains("&&") && !example.line.contains("||") {
        "exec "
    } else {
        ""
    };
    let mut shell = Command::new("sh");
    let shell = shell.args(["-c", &format!("{exec}{}", example.line)]).current_dir(sandbox.path()).env("PATH", path);
    let piped = shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = piped.spawn().unwrap();
    let id = child.id();
    let mut ended = std::pin::pin!(child.wait_with_output());
    let output = match timeout(GOES_ON, &mut ended).await {
        Ok(output) => output.unwrap(),
        Err(_) => {
            interrupt(id);
            timeout(PATIENCE, ended).await.unwrap_or_else(|_| panic!("{example:?} does not end")).unwrap()
        }
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "linnet {} --help: {} {}\nstdout:\n{out}\nstderr:\n{err}",
        example.page,
        example.line,
        output.status
    );
}

#[test]
fn examples_are_found_in_a_page() {
    let page = "Does it\n\nCommands:\n  one   First\n          goes on\n  two   Second\n  help  Print\n\nExample, with `linnet dev` running:\n  linnet a 'x\n    y'\n  linnet b\n\nExample:\n  linnet c\n";
    assert_eq!(subcommands(page), ["one", "two"]);
    let found = examples(page, &[]);
    let lines: Vec<_> = found.iter().map(|example| (example.line.as_str(), example.needs_server)).collect();
    assert_eq!(lines, [("linnet a 'x\ny'", true), ("linnet b", true), ("linnet c", false)]);
}
