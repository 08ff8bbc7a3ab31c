//! JSON strings written and read, and JSON texts made compact.

use super::scan::Scanner;

/// `text` as a JSON string with its quotes.
pub(crate) fn quote(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_string(text.as_bytes(), &mut out);
    out
}

/// What a byte becomes inside a string: itself (0), `\u00xx` (`u`), or a backslash and the byte given.
const ESCAPES: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut i = 0;
    #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, within bounds")]
    {
        while i < 0x20 {
            table[i] = b'u';
            i += 1;
        }
        table[b'"' as usize] = b'"';
        table[b'\\' as usize] = b'\\';
        table[b'\n' as usize] = b'n';
        table[b'\r' as usize] = b'r';
        table[b'\t' as usize] = b't';
        table[8] = b'b';
        table[12] = b'f';
    }
    table
};

/// Appends `text` as a JSON string with its quotes.
#[inline]
pub(crate) fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text;
    loop {
        let plain = super::scan::plain_len(rest);
        let (head, tail) = rest.split_at_checked(plain).unwrap_or((rest, b""));
        out.extend_from_slice(head);
        let Some((byte, tail)) = tail.split_first() else { break };
        match ESCAPES.get(usize::from(*byte)) {
            Some(b'u') => {
                let hex = |digit: u8| if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
            }
            Some(0) | None => out.push(*byte),
            Some(letter) => out.extend_from_slice(&[b'\\', *letter]),
        }
        rest = tail;
    }
    out.push(b'"');
}

/// Appends the text of a JSON string's inside, its escapes resolved. `None` where an escape is wrong or names half a
/// surrogate pair, which UTF-8 cannot hold.
pub(crate) fn unescape(inside: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = inside;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(rest.get(..at)?);
        let (letter, tail) = rest.get(at + 1..)?.split_first()?;
        rest = tail;
        match letter {
            b'"' | b'\\' | b'/' => out.push(*letter),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let (first, tail) = hex4(rest)?;
                rest = tail;
                let code = if (0xD800..0xDC00).contains(&first) {
                    let (second, tail) = hex4(rest.strip_prefix(b"\\u")?)?;
                    rest = tail;
                    let low = second.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
                    0x10000 + ((first - 0xD800) << 10) + low
                } else {
                    first
                };
                out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return None,
        }
    }
    out.extend_from_slice(rest);
    Some(())
}

fn hex4(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_at_checked(4)?;
    let code = digits.iter().try_fold(0u32, |sum, d| Some(sum * 16 + char::from(*d).to_digit(16)?))?;
    Some((code, rest))
}

/// Appends a JSON text that a [`Scanner`] has accepted, without the white space between its parts.
pub(crate) fn write_compact(text: &[u8], out: &mut Vec<u8>) {
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
    if !text.iter().any(blank) {
        out.extend_from_slice(text);
        return;
    }
    let (mut quoted, mut escaped) = (false, false);
    out.extend(text.iter().copied().filter(|byte| {
        let keep = quoted || !blank(byte);
        if quoted {
            quoted = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
        } else {
            quoted = *byte == b'"';
        }
        keep
    }));
}

/// Appends `text` compactly if it is one JSON value; otherwise appends it as a JSON string, so that what follows
/// stays readable. (SQL can put any text into a `json` column.)
pub(crate) fn write_json(text: &[u8], out: &mut Vec<u8>) {
    let mut scanner = Scanner::new(text);
    scanner.space();
    match scanner.skip_value(0) {
        Ok(value) if scanner.at_end() => write_compact(value, out),
        _ => write_string(text, out),
    }
}
