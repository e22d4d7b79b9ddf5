//! Attachments as offices send them: most are compressed already, some are not.
//!
//! | share | kind | what zstd makes of it |
//! |---|---|---|
//! | 40 % | PDF: packed streams between text objects | little |
//! | 28 % | Office Open XML, a zip | nothing |
//! | 15 % | JPEG | nothing |
//! | 7 % | CSV | much |
//! | 4 % | flat XML of an office program | very much |
//! | 6 % | old binary office format: UTF-16 and zeros | half |

use super::{dice::Dice, language::Language};

/// A file before it is encoded.
#[derive(Clone)]
pub(super) struct Attachment {
    pub(super) name: String,
    pub(super) media_type: &'static str,
    pub(super) octets: Vec<u8>,
}

impl Attachment {
    pub(super) fn new(dice: &mut Dice, language: &Language, size: usize) -> Self {
        let stem = format!("{}-{}", language.name(dice), language.name(dice));
        let (extension, media_type, octets) = match dice.below(100) {
            0..40 => ("pdf", "application/pdf", pdf(dice, language, size)),
            40..68 => {
                ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", zip(dice, size))
            }
            68..83 => ("jpg", "image/jpeg", jpeg(dice, size)),
            83..90 => ("csv", "text/csv", csv(dice, language, size)),
            90..94 => ("xml", "application/xml", xml(dice, language, size)),
            _ => ("xls", "application/vnd.ms-excel", binary_office(dice, language, size)),
        };
        Self { name: format!("{stem}.{extension}"), media_type, octets }
    }
}

/// Picture of a signature.
pub(super) fn logo(dice: &mut Dice) -> Vec<u8> {
    let size = dice.between(4_000, 22_000);
    let mut octets = dice.octets(size);
    octets[..8].copy_from_slice(b"\x89PNG\r\n\x1a\n");
    octets
}

fn zip(dice: &mut Dice, size: usize) -> Vec<u8> {
    let mut octets = dice.octets(size);
    octets[..4].copy_from_slice(b"PK\x03\x04");
    octets
}

fn jpeg(dice: &mut Dice, size: usize) -> Vec<u8> {
    let mut octets = dice.octets(size);
    octets[..4].copy_from_slice(b"\xff\xd8\xff\xe0");
    octets
}

/// Of each 4 KiB, 800 octets are objects in text.
fn pdf(dice: &mut Dice, language: &Language, size: usize) -> Vec<u8> {
    let text = language.text(dice, 3_000).into_bytes();
    let mut octets = dice.octets(size);
    for (number, page) in octets.chunks_mut(4_096).enumerate() {
        let object = format!("endstream endobj {number} 0 obj << /Type /Page /Parent 3 0 R /Length 3296 >> ");
        let text = object.bytes().chain(text.iter().copied().cycle().skip(number * 585 % text.len()));
        for (to, from) in page.iter_mut().take(800).zip(text) {
            *to = from;
        }
    }
    octets[..8].copy_from_slice(b"%PDF-1.7");
    octets
}

fn csv(dice: &mut Dice, language: &Language, size: usize) -> Vec<u8> {
    let mut table = String::with_capacity(size + 80);
    while table.len() < size {
        let (number, cents, day) = (dice.below(100_000), dice.below(999_900), dice.below(28) + 1);
        let word = language.word(dice);
        table +=
            &format!("{number};{word};{}.{:02};2026-{:02}-{day:02}\r\n", cents / 100, cents % 100, number % 12 + 1);
    }
    cut(table.into_bytes(), size)
}

fn xml(dice: &mut Dice, language: &Language, size: usize) -> Vec<u8> {
    let mut sheet = String::with_capacity(size + 300);
    sheet += "<?xml version=\"1.0\"?>\n<Workbook xmlns=\"urn:schemas-microsoft-com:office:spreadsheet\">\n<Worksheet><Table>\n";
    while sheet.len() < size {
        let word = language.word(dice);
        sheet += &format!(
            "<Row ss:AutoFitHeight=\"0\"><Cell ss:StyleID=\"s62\"><Data ss:Type=\"String\">{word}</Data></Cell>\
             <Cell ss:StyleID=\"s63\"><Data ss:Type=\"Number\">{}</Data></Cell></Row>\n",
            dice.below(1_000_000)
        );
    }
    cut(sheet.into_bytes(), size)
}

/// UTF-16 text, packed streams and runs of zeros in turn.
fn binary_office(dice: &mut Dice, language: &Language, size: usize) -> Vec<u8> {
    let mut octets = Vec::with_capacity(size + 4_000);
    octets.extend_from_slice(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1");
    while octets.len() < size {
        let text = language.text(dice, 900);
        octets.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
        octets.extend(dice.octets(700));
        octets.resize(octets.len() + 300, 0);
    }
    cut(octets, size)
}

fn cut(mut octets: Vec<u8>, size: usize) -> Vec<u8> {
    octets.truncate(size);
    octets
}
