//! How results look to people.

use std::fmt::Write as _;

/// `hh:mm:ss` in UTC.
pub(crate) fn clock(ms: u64) -> String {
    let s = ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

/// A span in its largest unit: `0.8 s`, `14 min`, `3 h`.
pub(crate) fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        3_600_000..86_400_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

/// `84,112`.
pub(crate) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `1 group`, `2 groups`.
pub(crate) fn count(n: u64, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{} {one}s", number(n)) }
}

/// `5f0c…9a1e`: enough to tell keys apart.
pub(crate) fn masked(key: &str) -> String {
    let chars: Vec<char> = key.chars().collect();
    match chars.len() {
        0 => "none".to_owned(),
        1..=12 => "…".to_owned(),
        n => format!("{}…{}", chars[..4].iter().collect::<String>(), chars[n - 4..].iter().collect::<String>()),
    }
}

/// A word for a POSIX shell.
pub(crate) fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Rows in aligned columns; the last one is not padded.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut shown = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, (cell, width)) in row.iter().zip(widths).enumerate() {
            let pad = if i + 1 == N { 0 } else { width };
            let _ = write!(line, "{cell:<pad$}{}", if i + 1 == N { "" } else { "  " });
        }
        let _ = writeln!(shown, "{}", line.trim_end());
    }
    shown.truncate(shown.trim_end().len());
    shown
}

/// JSON text with line breaks and indentation; order, numbers and escapes stay as they came. Text that is not JSON comes
/// out as unreadable as it went in, but whole.
pub(crate) fn pretty(json: &str) -> String {
    let mut shown = String::with_capacity(json.len() * 2);
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let mut chars = json.chars().peekable();
    while let Some(c) = chars.next() {
        if quoted {
            shown.push(c);
            (quoted, escaped) = (escaped || c != '"', !escaped && c == '\\');
            continue;
        }
        match c {
            '"' => {
                quoted = true;
                shown.push(c);
            }
            '{' | '[' => {
                shown.push(c);
                while chars.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                match chars.next_if(|next| *next == '}' || *next == ']') {
                    Some(close) => shown.push(close),
                    None => {
                        depth += 1;
                        line(&mut shown, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut shown, depth);
                shown.push(c);
            }
            ',' => {
                shown.push(c);
                line(&mut shown, depth);
            }
            ':' => shown.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => shown.push(c),
        }
    }
    shown
}

fn line(shown: &mut String, depth: usize) {
    shown.push('\n');
    for _ in 0..depth {
        shown.push_str("  ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pretty_keeps_order_numbers_and_escapes() {
        let json = r#"{"b":1.50,"a":["x\"},{",{}, [ ]],"c":{"n":1e3}}"#;
        let shown = pretty(json);
        assert_eq!(
            shown,
            "{\n  \"b\": 1.50,\n  \"a\": [\n    \"x\\\"},{\",\n    {},\n    []\n  ],\n  \"c\": {\n    \"n\": 1e3\n  }\n}"
        );
        let parsed: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), parsed);
        assert_eq!(pretty(&shown), shown, "twice is once");
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        assert_eq!(shell("openim/sendmsg"), "openim/sendmsg");
        assert_eq!(shell("it's {\"a\":1}"), r#"'it'\''s {"a":1}'"#);
        assert_eq!(shell(""), "''");
    }

    #[test]
    fn numbers_spans_and_keys() {
        assert_eq!([number(0), number(999), number(84_112), number(1_000_000)], ["0", "999", "84,112", "1,000,000"]);
        assert_eq!([span(800), span(840_000), span(1_850)], ["800 ms", "14 min", "1.8 s"]);
        assert_eq!([masked("5f0c1111222233339a1e"), masked("short"), masked("")], ["5f0c…9a1e", "…", "none"]);
        assert_eq!(clock(50_531_000), "14:02:11");
    }
}
