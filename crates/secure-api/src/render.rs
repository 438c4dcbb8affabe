//! How does an invoice leave as a document? As a PDF, whose making costs something, and as a line of a spreadsheet, which
//! may be a program.

use crate::invoice::Invoice;

/// The head of an export.
pub const CSV_HEAD: &str = "id,title,note,amount_cents,paid\r\n";

/// A line of an export.
pub fn csv_line(invoice: &Invoice) -> String {
    let Invoice { id, title, note, amount_cents, paid, .. } = invoice;
    format!("{id},{},{},{amount_cents},{paid}\r\n", cell(title), cell(note))
}

// ANCHOR: cell
/// A text in quotes. Spreadsheets take a text that begins like this for a formula, and run it: `=HYPERLINK(…)`. With an
/// apostrophe before it, it is a text. Where lists are separated by `;`, or the quotes are ignored, each part is a cell.
fn cell(text: &str) -> String {
    let is_formula = |part: &str| {
        let begin = part.trim_start_matches(|c: char| c.is_whitespace() || c == '"');
        begin.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠'])
    };
    let mark = |part| if is_formula(part) { "'" } else { "" };
    let parts = text.split_inclusive([';', '\t', '\r', '\n']);
    let safe = parts.map(|part| format!("{}{part}", mark(part))).collect::<String>();
    format!("\"{}\"", safe.replace('"', "\"\""))
}
// ANCHOR_END: cell

/// A PDF of one page. Text becomes a string of the PDF, and never a part of its program.
pub fn pdf(invoice: &Invoice) -> Vec<u8> {
    let Invoice { id, title, amount_cents, .. } = invoice;
    let amount = format!("{}.{:02}", amount_cents / 100, amount_cents % 100);
    let lines = [format!("Invoice {id}"), title.clone(), amount];
    let lines = lines.iter().map(|line| format!("({}) Tj T*\n", pdf_text(line)));
    let page = format!("BT /F1 12 Tf 14 TL 72 770 Td\n{}ET", lines.collect::<String>());
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R \
         /Resources << /Font << /F1 5 0 R >> >> >>"
            .to_owned(),
        format!("<< /Length {} >>\nstream\n{page}\nendstream", page.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
    ];
    let (mut document, mut places) = ("%PDF-1.4\n".to_owned(), String::new());
    for (n, object) in (1..).zip(&objects) {
        places += &format!("{:010} 00000 n \n", document.len());
        document += &format!("{n} 0 obj\n{object}\nendobj\n");
    }
    let start = document.len();
    document += &format!(
        "xref\n0 6\n0000000000 65535 f \n{places}trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n"
    );
    document.into_bytes()
}

/// What Helvetica has, with the three characters escaped that mean something in a string.
fn pdf_text(text: &str) -> String {
    let known = text.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' });
    known.collect::<String>().replace('\\', "\\\\").replace('(', "\\(").replace(')', "\\)")
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;

    fn invoice(title: &str) -> Invoice {
        Invoice {
            id: Uuid::nil(),
            title: title.to_owned(),
            note: String::new(),
            amount_cents: 1_205,
            corrects: None,
            paid: false,
            created_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_formula_becomes_a_text() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "＝1+1", "\u{a0}=1"] {
            assert_eq!(cell(formula), format!("\"'{formula}\""));
        }
        for text in ["tea", "1=1", "a;b", "a;1=1;", ""] {
            assert_eq!(cell(text), format!("\"{text}\""));
        }
    }

    #[test]
    fn a_formula_behind_a_separator_becomes_a_text_too() {
        assert_eq!(cell("x;=1"), "\"x;'=1\"");
        assert_eq!(cell("-1;;\u{a0}+2;x"), "\"'-1;;'\u{a0}+2;x\"");
        // A cell that begins with two quotation marks goes on after them.
        assert_eq!(cell("x;\"=1"), "\"x;'\"\"=1\"");
        assert_eq!(cell("a\n=1\t@b"), "\"a\n'=1\t'@b\"");
    }

    #[test]
    fn a_quotation_mark_does_not_end_a_cell() {
        assert_eq!(cell("a\",=1,\"b"), "\"a\"\",=1,\"\"b\"");
        assert!(csv_line(&invoice("tea, milk")).contains(",\"tea, milk\",\"\",1205,false\r\n"));
    }

    #[test]
    fn text_does_not_become_a_part_of_the_pdf() {
        let pdf = String::from_utf8(pdf(&invoice(") Tj (evil\\"))).unwrap();
        assert!(pdf.contains("(\\) Tj \\(evil\\\\) Tj T*"), "{pdf}");
        assert!(pdf.contains("(12.05) Tj") && pdf.ends_with("%%EOF\n"));
    }
}
