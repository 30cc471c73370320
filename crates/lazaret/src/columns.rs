//! Text in columns: long lists wrapped to the width of the terminal.

/// The width of text that goes nowhere in particular.
const WIDTH: usize = 100;

/// The width of standard output: the terminal's, 100 where there is none, never more than is good to read.
#[must_use]
pub fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    let columns = size.map_or(WIDTH, |size| usize::from(size.ws_col));
    if columns == 0 {
        WIDTH
    } else {
        columns.clamp(40, 160)
    }
}

/// Words in lines of at most `width` characters; the first begins with `head`, the others with as much space. A word that is
/// longer than a line has one of its own.
#[must_use]
pub fn wrap<'w>(head: &str, words: impl IntoIterator<Item = &'w str>, width: usize) -> String {
    let indent = head.chars().count();
    let mut text = head.to_string();
    let mut column = indent;
    for word in words {
        let long = word.chars().count();
        if column > indent && column + 1 + long > width {
            text.push('\n');
            text.push_str(&" ".repeat(indent));
            column = indent;
        } else if column > indent {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += long;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_within_the_width_and_under_each_other() {
        let text = wrap("head  ", "one two three four".split(' '), 14);
        assert_eq!(text, "head  one two\n      three\n      four");
        assert_eq!(
            wrap("h ", ["a-word-that-is-too-long", "b"], 10),
            "h a-word-that-is-too-long\n  b"
        );
        assert_eq!(wrap("only ", [], 10), "only ");
    }
}
