//! The examples of `docs/formats/pack.md` and `docs/formats/record.md` decode, octet for octet.

use data_encoding::HEXLOWER;
use postkeep_archiver::store::{
    entry::Record,
    format::{
        group::Filling,
        pack::{
            self, ChunkAt, FrameKind, PACK_FOOTER, PackError, Plain, decode_footer, encode_table, pack_footer,
            seal_frame,
        },
        record::{self, Content, RecordError, RecordFileHeader, record_hash, seal_batch},
    },
    keyring::Keyring,
};

const CHUNKS: [&[u8]; 2] = [b"hello, store\r\n", b"and another\r\n"];
const LEDGER: &[u8] = br#"{"record":"ledger","source":"s","host":"h","entries":[]}"#;
const FILING: &[u8] = br#"{"record":"filing","source":"s","mailbox":"m","uidl":"u","collected_ms":1,"filed_ms":2,"by":"refile","outcome":"filed","unowned":[],"settled":["zoe@a.example"],"instances":[{"owner":"zoe","folder":"Journal Incoming","because":[{"part":"recipient","address":"Zoe@a.example","rule":"address"}]}],"message":null}"#;
const PACK_PAGE: &str = include_str!("../../docs/formats/pack.md");
const RECORD_PAGE: &str = include_str!("../../docs/formats/record.md");

fn count_up<const N: usize>(from: u8) -> [u8; N] {
    std::array::from_fn(|at| from + at as u8)
}

/// Epoch 0 of 32 × 07, epoch 1 of 32 × 08.
fn keys() -> Keyring {
    let mut keys = Keyring::derive(count_up(0), &[7; 32]);
    keys.add_epoch(&[8; 32]);
    keys
}

/// The example of version 2: a group of two chunks in epoch 1, and the table.
fn pack() -> Vec<u8> {
    let (keys, pack) = (keys(), count_up(0x10));
    let mut out = pack::Form::Grouped(1).header(&keys.id, &pack);
    let mut group = Filling::default();
    for chunk in CHUNKS {
        group.push(chunk);
    }
    let group = group.encode();
    let entries: Vec<ChunkAt> = (0..)
        .zip(CHUNKS)
        .map(|(index, chunk)| ChunkAt { id: keys.chunk_id(chunk), offset: 44, index, len: chunk.len() as u32 })
        .collect();
    let stored = |octets| Plain { octets, small: None };
    out.extend(seal_frame(&keys, 1, &pack, 44, FrameKind::Chunks, &stored(group), [0x21; 24]).expect("epoch 1"));
    let (at, table) = (out.len() as u64, encode_table(&entries));
    out.extend(seal_frame(&keys, 1, &pack, at, FrameKind::Table, &stored(&table), [0x22; 24]).expect("epoch 1"));
    out.extend(pack_footer(at));
    out
}

/// The example of version 3: two records in epoch 1, as a batch that is not compressed would be written.
fn batch() -> Vec<u8> {
    let keys = keys();
    let form = record::Form::Batches(1);
    let mut out = RecordFileHeader { form, store: keys.id, first: 1, prev: [0; 32] }.encode();
    let records = [LEDGER, FILING].map(|plain| Content::new(plain.to_vec()).expect("small"));
    out.extend(seal_batch(&keys, 1, 1, [0; 32], &records, [0x31; 24]).expect("epoch 1"));
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
    for octets in [pack(), batch()] {
        octets.chunks(40).for_each(|line| println!("{}", HEXLOWER.encode(line)));
        println!();
    }
}

/// Every frame of a sealed pack with one frame of chunks, opened; the chunks as the table lists them.
fn read_pack(octets: &[u8], keys: &Keyring) -> (pack::Form, Vec<Vec<u8>>) {
    let id = count_up(0x10);
    let form = pack::Form::of(octets, keys, &id).expect("a pack header");
    let table = decode_footer(&octets[octets.len() - PACK_FOOTER..]).expect("a footer") as usize;
    let (start, head) = (form.header_len(), form.frame_len());
    let header = form.frame(&octets[start..]).expect("a frame header");
    assert_eq!(start + head + header.sealed_len as usize, table);
    let sealed = &octets[start + head..table];
    let opened = form.open(keys, &id, start as u64, &header, sealed).expect("opens");
    let table_header = form.frame(&octets[table..]).expect("a frame header");
    assert_eq!((header.kind, table_header.kind), (FrameKind::Chunks, FrameKind::Table));
    let sealed_table = &octets[table + head..octets.len() - PACK_FOOTER];
    let content = form.open(keys, &id, table as u64, &table_header, sealed_table).expect("opens");
    let entries = form.table(&content.plain).expect("a table");
    for entry in &entries {
        let chunk = opened.chunk(entry.index as usize).expect("is in the group");
        assert_eq!((keys.chunk_id(chunk), chunk.len() as u32, entry.offset), (entry.id, entry.len, start as u64));
    }
    assert_eq!(entries.len(), opened.chunks.len());

    let refused = |keys: &Keyring, id: [u8; 16], at: u64| form.open(keys, &id, at, &header, sealed).err();
    assert_eq!(refused(keys, id, start as u64 + 1), Some(PackError::Sealed), "bound to its place");
    assert_eq!(refused(keys, count_up(0x11), start as u64), Some(PackError::Sealed), "bound to its pack");
    let mut other = Keyring::derive(count_up(1), &[7; 32]);
    other.add_epoch(&[8; 32]);
    assert_eq!(refused(&other, id, start as u64), Some(PackError::Sealed), "bound to its store");
    assert_eq!(pack::Form::of(octets, &other, &id), Err(PackError::Foreign));
    let mut newer = octets.to_vec();
    newer[7] = 9;
    assert_eq!(pack::Form::of(&newer, keys, &id), Err(PackError::Version(9)));
    (form, (0..opened.chunks.len()).map(|n| opened.chunk(n).expect("is there").to_vec()).collect())
}

#[test]
fn the_pack_examples_decode() {
    let (form, chunks) = read_pack(&example(PACK_PAGE, 1), &keys());
    assert_eq!((form, chunks), (pack::Form::Grouped(1), CHUNKS.map(<[u8]>::to_vec).to_vec()));
    assert_eq!(example(PACK_PAGE, 1), pack(), "writing gives the same octets");
    let (form, chunks) = read_pack(&example(PACK_PAGE, 2), &keys());
    assert_eq!((form, chunks), (pack::Form::First, vec![CHUNKS[0].to_vec()]), "version 1 for ever");

    let (id, octets) = (count_up(0x10), pack());
    let without = Keyring::derive(count_up(0), &[7; 32]);
    assert_eq!(pack::Form::of(&octets, &without, &id), Err(PackError::Epoch(1)), "the keys of epoch 1 are not there");
    let wrong = pack::Form::Grouped(0);
    let header = wrong.frame(&octets[44..]).expect("a frame header");
    let sealed = &octets[44 + wrong.frame_len()..][..header.sealed_len as usize];
    assert_eq!(wrong.open(&keys(), &id, 44, &header, sealed), Err(PackError::Sealed), "bound to its epoch");
}

/// The content of each record of a file with one frame.
fn read_records(octets: &[u8], keys: &Keyring) -> (record::Form, Vec<Vec<u8>>) {
    let file = RecordFileHeader::decode(octets, keys).expect("a file header");
    assert_eq!((file.first, file.prev), (1, [0; 32]));
    let form = file.form;
    let frame = &octets[form.file_header_len()..];
    let header = form.frame(frame).expect("a record header");
    assert_eq!((header.first, header.prev), (1, [0; 32]));
    let sealed = &frame[form.frame_len()..];
    let opened = form.open(keys, &header, sealed).expect("opens");
    let records: Vec<Vec<u8>> = opened.records().map(<[u8]>::to_vec).collect();
    assert_eq!(records.len(), header.count as usize);
    for (number, content) in (1..).zip(&records) {
        assert_eq!(opened.record(number), Some(content.as_slice()));
        let read: Record = serde_json::from_slice(content).expect("a record");
        assert_eq!(&serde_json::to_vec(&read).expect("writes"), content, "every field is kept");
    }
    assert_eq!(opened.record(records.len() as u64 + 1), None);

    let renumbered = record::FrameHeader { first: 2, ..header };
    assert_eq!(form.open(keys, &renumbered, sealed), Err(RecordError::Sealed), "bound to its number");
    for other in record::Form::all(keys).into_iter().filter(|other| *other != form) {
        assert_eq!(other.open(keys, &header, sealed).err(), Some(RecordError::Sealed), "bound to its form");
    }
    assert_ne!(record_hash(frame), record_hash(octets));
    let mut newer = octets.to_vec();
    newer[7] = 4;
    assert_eq!(RecordFileHeader::decode(&newer, keys), Err(RecordError::Version(4)));
    (form, records)
}

#[test]
fn the_record_examples_decode() {
    let (form, records) = read_records(&example(RECORD_PAGE, 1), &keys());
    assert_eq!((form, records), (record::Form::Batches(1), vec![LEDGER.to_vec(), FILING.to_vec()]));
    // Another zstd may compress in another way; what it wrote is read all the same.
    assert_eq!(read_records(&batch(), &keys()).1, vec![LEDGER.to_vec(), FILING.to_vec()]);
    let (form, records) = read_records(&example(RECORD_PAGE, 2), &keys());
    assert_eq!((form, records), (record::Form::Alone(2), vec![FILING.to_vec()]), "version 2 for ever");
    let (form, records) = read_records(&example(RECORD_PAGE, 3), &keys());
    assert_eq!((form, records), (record::Form::Alone(1), vec![LEDGER.to_vec()]), "version 1 for ever");
    let without = Keyring::derive(count_up(0), &[7; 32]);
    assert_eq!(RecordFileHeader::decode(&batch(), &without), Err(RecordError::Epoch(1)));
}

#[test]
fn headers_take_any_octets() {
    let keys = keys();
    for mut octets in [pack(), batch(), example(PACK_PAGE, 2), example(RECORD_PAGE, 2)] {
        for at in 0..octets.len() {
            for value in [0, 0xff, 0x80] {
                let before = std::mem::replace(&mut octets[at], value);
                let _ = pack::Form::of(&octets, &keys, &count_up(0x10));
                let _ = RecordFileHeader::decode(&octets, &keys);
                for (pack, record) in pack::Form::all(&keys).into_iter().zip(record::Form::all(&keys)) {
                    let _ = pack.frame(&octets[pack.header_len()..]);
                    let _ = pack.table(&octets);
                    let _ = record.frame(&octets[record.file_header_len()..]);
                }
                octets[at] = before;
            }
            let _ = pack::Form::of(&octets[..at], &keys, &count_up(0x10));
            let _ = RecordFileHeader::decode(&octets[..at], &keys);
        }
    }
}
