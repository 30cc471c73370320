//! A text with its lines: from an offset to line, column and the lines that show it.
//!
//! Line breaks are those of YAML 1.2 (§5.4): LF, CR LF and CR. Columns count characters from 1, as editors do.

use crate::error::Finding;
use unicode_width::UnicodeWidthChar;

/// The most terminal columns of a source line that are shown; a longer line is cut around the caret.
const MAX_WIDTH: usize = 100;
/// How much of it stands before the caret, where the line is cut.
const BEFORE: usize = 60;
/// The most characters of a message: names in it come from the text and can be as long as the text.
const MAX_MESSAGE: usize = 480;
/// What a tabulator is shown as.
const TAB: &str = "    ";

/// A text to point into.
#[derive(Clone, Copy)]
pub(crate) struct Source<'t> {
    text: &'t str,
}

impl<'t> Source<'t> {
    pub(crate) fn new(text: &'t str) -> Source<'t> {
        Source { text }
    }

    /// The bytes of a range, if it is one.
    pub(crate) fn slice(self, start: usize, len: usize) -> Option<&'t str> {
        self.text.get(start..start.checked_add(len)?)
    }

    /// The offset of a place given as line and as bytes after the line's begin, both from 0; the nearest character's begin
    /// where it is none.
    pub(crate) fn offset(self, line: usize, bytes: usize) -> usize {
        let start = self.lines().nth(line).map_or(self.text.len(), |(at, _)| at);
        let mut at = start.saturating_add(bytes).min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1; // 0 is a boundary
        }
        at
    }

    /// The offset of a place given as line and as characters after the line's begin, both from 0.
    pub(crate) fn offset_of_char(self, line: usize, chars: usize) -> usize {
        let Some((start, content)) = self.lines().nth(line) else {
            return self.text.len();
        };
        let inside = content.char_indices().nth(chars);
        start + inside.map_or(content.len(), |(at, _)| at)
    }

    /// Each line's offset and its text without the break.
    fn lines(self) -> impl Iterator<Item = (usize, &'t str)> {
        let mut next = Some(0);
        std::iter::from_fn(move || {
            let start = next?;
            let rest = self.text.get(start..)?;
            let Some(end) = rest.find(['\n', '\r']) else {
                next = None;
                return Some((start, rest));
            };
            let (line, after) = rest.split_at(end);
            let wide = if after.starts_with("\r\n") { 2 } else { 1 };
            next = Some(start + end + wide);
            Some((start, line))
        })
    }

    /// A problem at an offset, as people read it.
    pub(crate) fn finding(self, offset: usize, place: String, what: &str) -> Finding {
        let (mut line, mut start, mut content) = (0, 0, "");
        for (number, (at, text)) in self.lines().enumerate() {
            if at > offset {
                break;
            }
            (line, start, content) = (number + 1, at, text);
        }
        // an offset in a line's break is that line's end
        let before = content
            .get(..offset.saturating_sub(start))
            .unwrap_or(content);
        let (shown, caret) = cut(content, before.chars().count());
        Finding {
            line,
            column: before.chars().count() + 1,
            place,
            what: message(what),
            shown,
            caret,
        }
    }
}

/// The part of a line around a character, and the terminal column of that character in it.
fn cut(line: &str, at: usize) -> (String, usize) {
    let mut width_before = 0;
    let mut width = 0;
    for (nth, c) in line.chars().enumerate() {
        if nth < at {
            width_before += shown(c).1;
        }
        width += shown(c).1;
    }
    let from = if width <= MAX_WIDTH {
        0
    } else {
        width_before.saturating_sub(BEFORE)
    };
    let mut text = String::new();
    let mut caret = 0;
    if from > 0 {
        text.push('…');
        caret = 1;
    }
    let mut column = 0;
    for (nth, c) in line.chars().enumerate() {
        let (as_shown, wide) = shown(c);
        if column >= from {
            if column - from >= MAX_WIDTH {
                text.push('…');
                break;
            }
            match as_shown {
                Shown::As(c) => text.push(c),
                Shown::Tab => text.push_str(TAB),
            }
            if nth < at {
                caret += wide;
            }
        }
        column += wide;
    }
    (text, caret)
}

enum Shown {
    As(char),
    Tab,
}

/// What stands for a character on a terminal, and its width in columns. Whatever moves the cursor or the direction of
/// writing is replaced: a text under review must not be able to draw over its own error.
fn shown(c: char) -> (Shown, usize) {
    match c {
        '\t' => (Shown::Tab, TAB.len()),
        c if moves(c) => (Shown::As(char::REPLACEMENT_CHARACTER), 1),
        c => (Shown::As(c), c.width().unwrap_or(0)),
    }
}

/// Control characters, line separators, and the marks of Unicode's bidirectional algorithm (UAX 9).
fn moves(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{61c}'
        )
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A message of one line and of a bounded length.
fn message(what: &str) -> String {
    let clean = |c: char| {
        if moves(c) {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    let chars = what.chars().count();
    if chars <= MAX_MESSAGE {
        return what.chars().map(clean).collect();
    }
    let half = MAX_MESSAGE / 2;
    let head = what.chars().take(half);
    let tail = what.chars().skip(chars - half);
    head.chain(['…']).chain(tail).map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, offset: usize, wanted: &str) {
        let finding = Source::new(text).finding(offset, String::new(), "x");
        let lines: Vec<String> = finding.to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines.join("\n"), wanted, "{text:?} at {offset}");
    }

    #[test]
    fn the_caret_stands_under_the_character() {
        check("ab: c\n", 4, "line 1 column 5: x\n1 | ab: c\n  |     ^");
        check("\tb", 1, "line 1 column 2: x\n1 |     b\n  |     ^");
        check("é: b", 4, "line 1 column 4: x\n1 | é: b\n  |    ^");
        // two columns wide
        check("漢: b", 5, "line 1 column 4: x\n1 | 漢: b\n  |     ^");
        // a combining accent has no width
        check(
            "e\u{301}: b",
            5,
            "line 1 column 5: x\n1 | e\u{301}: b\n  |    ^",
        );
    }

    #[test]
    fn every_line_break_counts_once() {
        check("a\r\nb\r\nc", 6, "line 3 column 1: x\n3 | c\n  | ^");
        check("a\rb\nc", 4, "line 3 column 1: x\n3 | c\n  | ^");
        check("a\r\nb", 1, "line 1 column 2: x\n1 | a\n  |  ^");
        check("", 0, "line 1 column 1: x\n1 | \n  | ^");
        check("a\n", 2, "line 2 column 1: x\n2 | \n  | ^");
        // past the end: the last line's end
        check("ab", 99, "line 1 column 3: x\n1 | ab\n  |   ^");
    }

    #[test]
    fn offsets_from_lines() {
        let source = Source::new("é\r\nbéc");
        assert_eq!(source.offset_of_char(1, 2), 4 + 3);
        assert_eq!(source.offset_of_char(0, 9), 2);
        assert_eq!(source.offset_of_char(9, 0), 8);
        assert_eq!(source.offset(1, 1), 5);
        // in the middle of a character
        assert_eq!(source.offset(1, 2), 5);
        assert_eq!(source.offset(9, 9), 8);
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let long = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let finding = Source::new(&long).finding(500, String::new(), "x");
        assert_eq!(finding.column, 501);
        let shown: Vec<char> = finding.shown.chars().collect();
        assert_eq!(shown.get(finding.caret), Some(&'X'));
        assert_eq!((shown.first(), shown.last()), (Some(&'…'), Some(&'…')));
        assert_eq!(shown.len(), MAX_WIDTH + 2);
        let short = format!("{}X", "a".repeat(MAX_WIDTH - 1));
        let finding = Source::new(&short).finding(0, String::new(), "x");
        assert_eq!(finding.shown, short);
    }

    #[test]
    fn a_text_cannot_draw_over_its_error() {
        let finding = Source::new("a\u{1b}[2Jb\u{202e}c").finding(0, String::new(), "\u{1b}[2J\n");
        assert_eq!(finding.shown, "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(finding.what, "\u{fffd}[2J\u{fffd}");
        let finding = Source::new("").finding(0, String::new(), &"é".repeat(10_000));
        assert_eq!(finding.what.chars().count(), MAX_MESSAGE + 1);
    }
}
