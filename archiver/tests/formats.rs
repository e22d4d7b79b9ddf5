//! The examples of `docs/formats/pack.md` and `docs/formats/record.md` decode, octet for octet.

use data_encoding::HEXLOWER;
use postkeep_archiver::store::{
    entry::Record,
    format::{
        pack::{
            FRAME_HEADER, FrameHeader, FrameKind, PACK_FOOTER, PACK_HEADER, PackError, TableEntry, check_header,
            decode_footer, decode_table, encode_table, open_frame, pack_footer, pack_header, seal_frame,
        },
        record::{
            Content, FILE_HEADER, RECORD_HEADER, RecordError, RecordFileHeader, RecordHeader, open_record, record_hash,
            seal_record,
        },
    },
    keyring::Keyring,
};

const CHUNK: &[u8] = b"hello, store\r\n";
const CONTENT: &[u8] = br#"{"record":"ledger","source":"s","host":"h","entries":[]}"#;
const FILING: &[u8] = br#"{"record":"filing","source":"s","mailbox":"m","uidl":"u","collected_ms":1,"filed_ms":2,"by":"refile","outcome":"filed","unowned":[],"settled":["zoe@a.example"],"instances":[{"owner":"zoe","folder":"Journal Incoming","because":[{"part":"recipient","address":"Zoe@a.example","rule":"address"}]}],"message":null}"#;

fn count_up<const N: usize>(from: u8) -> [u8; N] {
    std::array::from_fn(|at| from + at as u8)
}

fn keys() -> Keyring {
    Keyring::derive(count_up(0), &[7; 32])
}

fn pack() -> Vec<u8> {
    let (keys, pack) = (keys(), count_up(0x10));
    let mut out = pack_header(&keys.id, &pack).to_vec();
    let id = keys.chunk_id(CHUNK);
    out.extend(seal_frame(&keys, &pack, 40, FrameKind::Chunk, id, CHUNK, [0x21; 24]));
    let at = out.len() as u64;
    let (plain_len, sealed_len) = (CHUNK.len() as u32, CHUNK.len() as u32 + 16);
    let table = encode_table(&[TableEntry { offset: 40, plain_len, sealed_len, id }]);
    out.extend(seal_frame(&keys, &pack, at, FrameKind::Table, keys.chunk_id(&table), &table, [0x22; 24]));
    out.extend(pack_footer(at));
    out
}

fn records(version: u16, plain: &[u8]) -> Vec<u8> {
    let keys = keys();
    let mut out = RecordFileHeader { version, store: keys.id, first: 1, prev: [0; 32] }.encode().to_vec();
    let content = Content::new(plain.to_vec()).expect("small");
    out.extend(seal_record(&keys, version, 1, [0; 32], &content, [0x31; 24]));
    out
}

fn example(page: &str, number: usize) -> Vec<u8> {
    let block = page.split("```hex").nth(number).and_then(|rest| rest.split("```").next()).expect("an example");
    let digits: String = block.chars().filter(char::is_ascii_hexdigit).collect();
    HEXLOWER.decode(digits.as_bytes()).expect("hex")
}

#[test]
#[ignore = "prints the examples for the pages"]
fn print_examples() {
    for octets in [pack(), records(2, FILING), records(1, CONTENT)] {
        octets.chunks(40).for_each(|line| println!("{}", HEXLOWER.encode(line)));
        println!();
    }
}

#[test]
fn the_pack_example_decodes() {
    let (octets, keys, id) = (example(include_str!("../../docs/formats/pack.md"), 1), keys(), count_up(0x10));
    check_header(&octets, &keys.id, &id).expect("a pack header");
    let header = FrameHeader::decode(&octets[PACK_HEADER..]).expect("a frame header");
    let end = PACK_HEADER + FRAME_HEADER + header.sealed_len as usize;
    let plain = open_frame(&keys, &id, 40, &header, &octets[PACK_HEADER + FRAME_HEADER..end]).expect("opens");
    assert_eq!(plain, CHUNK);
    let table = decode_footer(&octets[octets.len() - PACK_FOOTER..]).expect("a footer");
    assert_eq!(table, end as u64);
    let table_header = FrameHeader::decode(&octets[end..]).expect("a frame header");
    let sealed = &octets[end + FRAME_HEADER..octets.len() - PACK_FOOTER];
    let entries = decode_table(&open_frame(&keys, &id, table, &table_header, sealed).expect("opens")).expect("a table");
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].id, header.id);
    assert_eq!(octets, pack(), "writing gives the same octets");

    let sealed = &octets[PACK_HEADER + FRAME_HEADER..end];
    assert_eq!(open_frame(&keys, &id, 41, &header, sealed), Err(PackError::Sealed), "bound to its place");
    assert_eq!(open_frame(&keys, &count_up(0x11), 40, &header, sealed), Err(PackError::Sealed), "bound to its pack");
    let other = Keyring::derive(count_up(1), &[7; 32]);
    assert_eq!(open_frame(&other, &id, 40, &header, sealed), Err(PackError::Sealed), "bound to its store");
    assert_eq!(check_header(&octets, &other.id, &id), Err(PackError::Foreign));
}

#[test]
fn the_record_examples_decode() {
    let page = include_str!("../../docs/formats/record.md");
    for (number, version, plain) in [(1, 2, FILING), (2, 1, CONTENT)] {
        let (octets, keys) = (example(page, number), keys());
        let file = RecordFileHeader::decode(&octets, &keys.id).expect("a file header");
        assert_eq!((file.version, file.first, file.prev), (version, 1, [0; 32]));
        let record = &octets[FILE_HEADER..];
        let header = RecordHeader::decode(record).expect("a record header");
        assert_eq!((header.number, header.prev), (1, [0; 32]));
        let content = open_record(&keys, version, &header, &record[RECORD_HEADER..]).expect("opens");
        assert_eq!(content, plain);
        let read: Record = serde_json::from_slice(&content).expect("a record");
        assert_eq!(matches!(read, Record::Filing(_)), version == 2);
        assert_eq!(serde_json::to_vec(&read).expect("writes"), plain, "every field is kept");
        // Another zstd may compress in another way.
        assert!(header.compressed || octets == records(version, plain), "writing gives the same octets");

        let renumbered = RecordHeader { number: 2, ..header };
        let sealed = &record[RECORD_HEADER..];
        assert!(open_record(&keys, version, &renumbered, sealed).is_err(), "bound to its number");
        assert!(open_record(&keys, 3 - version, &header, sealed).is_err(), "bound to its version");
        assert_ne!(record_hash(record), record_hash(&octets));
        let mut newer = octets.clone();
        newer[7] = 3;
        assert_eq!(RecordFileHeader::decode(&newer, &keys.id), Err(RecordError::Version(3)));
    }
}

#[test]
fn headers_take_any_octets() {
    let mut octets = pack();
    for at in 0..octets.len() {
        for value in [0, 0xff, 0x80] {
            let before = std::mem::replace(&mut octets[at], value);
            let _ = FrameHeader::decode(&octets[PACK_HEADER..]);
            let _ = RecordHeader::decode(&octets);
            let _ = decode_table(&octets);
            octets[at] = before;
        }
        let _ = check_header(&octets[..at], &count_up(0), &count_up(0x10));
    }
}
