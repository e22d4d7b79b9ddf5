//! The original messages inside the reports: headers of Exchange Online, text and HTML alternatives as Outlook writes
//! them, quoted replies, pictures in signatures, attachments.

use super::{
    Encoding, Part,
    attachment::{self, Attachment},
    dice::{Dice, Ranks},
    encode::{base64_lines, folded, quoted_printable},
    language::Language,
};

/// Staff of the company, and addresses outside.
const STAFF: usize = 300;
const PARTNERS: usize = 2_000;
/// Files that are sent more than once, and pictures in signatures.
const SHARED: usize = 300;
const LOGOS: usize = 40;
/// Replies go to one of the last conversations.
const CONVERSATIONS: usize = 120;

/// Lengths of what a person writes before the quotation.
const TEXTS: &[(usize, usize)] = &[
    (0, 60),
    (50, 200),
    (250, 480),
    (500, 920),
    (750, 1_800),
    (900, 3_500),
    (950, 5_240),
    (990, 10_000),
    (999, 20_000),
    (1_000, 60_000),
];
/// Sizes of files that are sent more than once, and of the others.
const SHARED_SIZES: &[(usize, usize)] = &[
    (0, 4_000),
    (50, 6_200),
    (250, 20_000),
    (500, 45_000),
    (750, 101_000),
    (900, 190_000),
    (950, 324_000),
    (990, 734_000),
    (1_000, 1_500_000),
];
const OWN_SIZES: &[(usize, usize)] = &[
    (0, 2_000),
    (50, 5_600),
    (250, 17_800),
    (500, 40_000),
    (750, 90_000),
    (900, 170_000),
    (950, 288_000),
    (990, 655_000),
    (999, 1_600_000),
    (1_000, 2_500_000),
];
/// The largest file, sent twice, and one large file sent once.
const LARGEST: usize = 7_200_000;
const LARGE: usize = 4_000_000;

const STYLE: &str = "<style><!--\n@font-face\n\t{font-family:\"Cambria Math\";\n\tpanose-1:2 4 5 3 5 4 6 3 2 4;}\n\
    @font-face\n\t{font-family:Calibri;\n\tpanose-1:2 15 5 2 2 2 4 3 2 4;}\n\
    @font-face\n\t{font-family:Aptos;\n\tpanose-1:2 11 0 4 2 2 2 2 2 4;}\n\
    p.MsoNormal, li.MsoNormal, div.MsoNormal\n\t{margin:0cm;\n\tfont-size:11.0pt;\n\tfont-family:\"Calibri\",sans-serif;\n\
    \tmso-ligatures:standardcontextual;\n\tmso-fareast-language:EN-US;}\n\
    a:link, span.MsoHyperlink\n\t{mso-style-priority:99;\n\tcolor:#0563C1;\n\ttext-decoration:underline;}\n\
    span.EmailStyle17\n\t{mso-style-type:personal-compose;\n\tfont-family:\"Calibri\",sans-serif;\n\tcolor:windowtext;}\n\
    .MsoChpDefault\n\t{mso-style-type:export-only;\n\tfont-size:10.0pt;\n\tmso-ligatures:none;}\n\
    @page WordSection1\n\t{size:612.0pt 792.0pt;\n\tmargin:70.85pt 70.85pt 2.0cm 70.85pt;}\n\
    div.WordSection1\n\t{page:WordSection1;}\n--></style><!--[if gte mso 9]><xml>\n\
    <o:shapedefaults v:ext=\"edit\" spidmax=\"1026\" />\n</xml><![endif]-->";
const PARAGRAPH: &str = "<p class=\"MsoNormal\"><span lang=\"EN-US\" style=\"font-size:11.0pt;\
    font-family:&quot;Calibri&quot;,sans-serif\">";
const PARAGRAPH_END: &str = "<o:p></o:p></span></p>\n";

/// A message as it was sent, with what its reports name.
pub(super) struct Message {
    pub(super) octets: Vec<u8>,
    pub(super) parts: Vec<Part>,
    pub(super) sender: String,
    pub(super) subject: String,
    pub(super) id: String,
    pub(super) to: Vec<String>,
}

/// What has been said so far in a conversation.
#[derive(Clone, Default)]
struct Conversation {
    subject: String,
    text: String,
    html: String,
}

/// Who writes to whom, with which files.
pub(super) struct Company {
    language: Language,
    staff: Vec<String>,
    partners: Vec<String>,
    shared: Vec<Attachment>,
    shared_ranks: Ranks,
    logos: Vec<Vec<u8>>,
    logo_ranks: Ranks,
    largest: Attachment,
    conversations: Vec<Conversation>,
}

impl Company {
    pub(super) fn new(dice: &mut Dice) -> Self {
        let language = Language::new(dice);
        let domains = ["aurora.example", "borealis.example", "cobalt.example"];
        let person = |dice: &mut Dice| format!("{}.{}", language.name(dice), language.name(dice));
        let staff = (0..STAFF).map(|n| format!("{}{n}@{}", person(dice), domains[n % 3])).collect();
        let partners = (0..PARTNERS)
            .map(|n| format!("{}@{}-{}{}.example", person(dice), language.name(dice), language.name(dice), n % 400))
            .collect();
        let shared = (0..SHARED)
            .map(|n| {
                let size = match n {
                    // The files that are sent most often are small,
                    0..3 => 20_000 + n * 9_000,
                    // but presentations go round too.
                    8 | 20 => 880_000 + n * 3_000,
                    _ => dice.size(SHARED_SIZES),
                };
                Attachment::new(dice, &language, size)
            })
            .collect();
        let largest = loop {
            let candidate = Attachment::new(dice, &language, LARGEST);
            if candidate.media_type.contains("openxml") {
                break candidate;
            }
        };
        let logos = (0..LOGOS).map(|_| attachment::logo(dice)).collect();
        Self {
            language,
            staff,
            partners,
            shared,
            shared_ranks: Ranks::new(SHARED, 0),
            logos,
            logo_ranks: Ranks::new(LOGOS, 0),
            largest,
            conversations: Vec::new(),
        }
    }

    pub(super) fn employee(&self, dice: &mut Dice) -> String {
        dice.one(&self.staff).clone()
    }

    /// Writes one message. `place` of 1,000 in the corpus decides who gets the large files.
    pub(super) fn write(&mut self, dice: &mut Dice, place: Place) -> Message {
        let sender = if dice.percent(75) { dice.one(&self.staff) } else { dice.one(&self.partners) }.clone();
        let said = self.say(dice, &sender);
        let count = if dice.percent(8) { dice.between(5, 40) } else { dice.between(1, 4) };
        let to: Vec<String> = (0..count).map(|_| self.employee(dice)).collect();
        let id = format!("{}@{}", uuid(dice), sender.split('@').nth(1).unwrap_or_default());
        let attachments = self.attachments(dice, place);
        let logo = dice.percent(45).then(|| self.logos[self.logo_ranks.draw(dice)].clone());

        let mut letter = Letter::default();
        headers(dice, &mut letter.octets, &sender, &to, &said.subject, &id);
        letter.body(dice, &said, logo.as_deref(), &attachments);
        let subject = said.subject.clone();
        self.conversations.push(said);
        Message { octets: letter.octets, parts: letter.parts, sender, subject, id, to }
    }

    /// A new conversation or a reply that quotes an older one.
    fn say(&self, dice: &mut Dice, sender: &str) -> Conversation {
        let recent = &self.conversations[self.conversations.len().saturating_sub(CONVERSATIONS)..];
        let before =
            if !recent.is_empty() && dice.percent(42) { dice.one(recent).clone() } else { Conversation::default() };
        let subject = match before.subject.as_str() {
            "" => self.language.subject(dice),
            reply if reply.starts_with("RE: ") => reply.to_owned(),
            first => format!("RE: {first}"),
        };
        let length = dice.size(TEXTS);
        let written = self.language.text(dice, length);
        let signature = signature(sender);
        let paragraphs: String =
            written.trim_end().split('\n').map(|text| format!("{PARAGRAPH}{text}{PARAGRAPH_END}")).collect();
        let signed: String = signature
            .trim_end()
            .split('\n')
            .map(|text| format!("<p class=\"MsoNormal\"><span style=\"color:#1F497D\">{text}{PARAGRAPH_END}"))
            .collect();
        let mut text = format!("{written}\n{signature}");
        let mut html = format!("{paragraphs}{signed}");
        if !before.text.is_empty() {
            text += &format!("\n-----Original Message-----\nSubject: {}\n\n{}", before.subject, before.text);
            html += &format!(
                "<div style=\"border:none;border-top:solid #E1E1E1 1.0pt;padding:3.0pt 0cm 0cm 0cm\">\n{}</div>\n",
                before.html
            );
        }
        if dice.percent(4) {
            text = format!(".leading dot\n..two\n.\n{text}");
        }
        shorten(&mut text, 40_000);
        shorten(&mut html, 80_000);
        Conversation { subject, text, html }
    }

    fn attachments(&self, dice: &mut Dice, place: Place) -> Vec<Attachment> {
        if place == Place::Largest {
            return vec![self.largest.clone()];
        }
        let mut attachments = Vec::new();
        if dice.percent(25) {
            loop {
                attachments.push(match dice.percent(60) {
                    true => self.shared[self.shared_ranks.draw(dice)].clone(),
                    false => {
                        let size = dice.size(OWN_SIZES);
                        Attachment::new(dice, &self.language, size)
                    }
                });
                if attachments.len() == 6 || !dice.percent(25) {
                    break;
                }
            }
        }
        if place == Place::Large {
            attachments.push(Attachment::new(dice, &self.language, LARGE));
        }
        attachments
    }
}

/// Which message of the corpus this is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Any,
    /// Carries the largest file, which is sent twice.
    Largest,
    /// Carries another large file.
    Large,
}

/// A message while it is written.
#[derive(Default)]
struct Letter {
    octets: Vec<u8>,
    parts: Vec<Part>,
}

impl Letter {
    fn push(&mut self, text: &str) {
        self.octets.extend_from_slice(text.as_bytes());
    }

    /// Writes a part's body and remembers where it stands.
    fn part(&mut self, encoding: Encoding, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.octets.len();
        write(&mut self.octets);
        self.parts.push(Part { range: start..self.octets.len(), encoding });
    }

    fn body(&mut self, dice: &mut Dice, said: &Conversation, logo: Option<&[u8]>, attachments: &[Attachment]) {
        let boundary = |dice: &mut Dice, kind: &str| format!("_{kind}_{}_", hex(dice, 38));
        let (mixed, related) = (boundary(dice, "004"), boundary(dice, "005"));
        let alternative = boundary(dice, "000");
        if !attachments.is_empty() {
            self.push(&format!("Content-Type: multipart/mixed;\r\n\tboundary=\"{mixed}\"\r\n\r\n--{mixed}\r\n"));
        }
        if logo.is_some() {
            self.push(&format!(
                "Content-Type: multipart/related;\r\n\tboundary=\"{related}\";\r\n\ttype=\"multipart/alternative\"\r\n\r\n\
                 --{related}\r\n"
            ));
        }
        self.alternatives(&alternative, said);
        if let Some(picture) = logo {
            self.push(&format!(
                "\r\n--{related}\r\nContent-Type: image/png; name=\"image001.png\"\r\nContent-Description: image001.png\r\n\
                 Content-Disposition: inline; filename=\"image001.png\"; size={}\r\nContent-ID: <image001.png@01DAE5>\r\n\
                 Content-Transfer-Encoding: base64\r\n\r\n",
                picture.len()
            ));
            self.part(Encoding::Base64, |out| base64_lines(picture, out));
            self.push(&format!("\r\n--{related}--\r\n"));
        }
        for attachment in attachments {
            self.push(&format!(
                "\r\n--{mixed}\r\nContent-Type: {}; name=\"{name}\"\r\nContent-Description: {name}\r\n\
                 Content-Disposition: attachment; filename=\"{name}\"; size={}\r\n\
                 Content-Transfer-Encoding: base64\r\n\r\n",
                attachment.media_type,
                attachment.octets.len(),
                name = attachment.name,
            ));
            self.part(Encoding::Base64, |out| base64_lines(&attachment.octets, out));
        }
        if !attachments.is_empty() {
            self.push(&format!("\r\n--{mixed}--\r\n"));
        }
    }

    fn alternatives(&mut self, boundary: &str, said: &Conversation) {
        let html = format!(
            "<html xmlns:v=\"urn:schemas-microsoft-com:vml\" xmlns:o=\"urn:schemas-microsoft-com:office:office\" \
             xmlns:w=\"urn:schemas-microsoft-com:office:word\" xmlns=\"http://www.w3.org/TR/REC-html40\">\n<head>\n\
             <meta http-equiv=\"Content-Type\" content=\"text/html; charset=utf-8\">\n\
             <meta name=\"Generator\" content=\"Microsoft Word 15 (filtered medium)\">\n{STYLE}\n</head>\n\
             <body lang=\"EN-US\" link=\"#0563C1\" vlink=\"#954F72\" style=\"word-wrap:break-word\">\n\
             <div class=\"WordSection1\">\n{}</div>\n</body>\n</html>\n",
            said.html
        );
        let kind = |kind: &str| {
            format!(
                "--{boundary}\r\nContent-Type: text/{kind}; charset=\"utf-8\"\r\n\
                 Content-Transfer-Encoding: quoted-printable\r\n\r\n"
            )
        };
        self.push(&format!("Content-Type: multipart/alternative;\r\n\tboundary=\"{boundary}\"\r\n\r\n"));
        self.push(&kind("plain"));
        self.part(Encoding::QuotedPrintable, |out| quoted_printable(&said.text, out));
        self.push("\r\n");
        self.push(&kind("html"));
        self.part(Encoding::QuotedPrintable, |out| quoted_printable(&html, out));
        self.push(&format!("\r\n--{boundary}--\r\n"));
    }
}

fn headers(dice: &mut Dice, out: &mut Vec<u8>, sender: &str, to: &[String], subject: &str, id: &str) {
    for hop in 1..dice.between(4, 8) {
        let (from, by, name) = (hex(dice, 4), hex(dice, 4), hex(dice, 12).to_uppercase());
        let line = format!(
            "Received: from AM{hop}PR0{hop}MB{from}.eurprd0{hop}.prod.outlook.example\r\n (2001:db8:20b:{from}::{hop}) by \
             VI1PR0{hop}MB{by}.eurprd0{hop}.prod.outlook.example with HTTPS\r\n id {name}.15; Mon, 3 Aug 2026 \
             09:{:02}:{:02} +0000\r\n",
            dice.below(60),
            dice.below(60)
        );
        out.extend_from_slice(line.as_bytes());
    }
    let seal = signature_octets(dice, 256);
    folded("ARC-Seal", &format!("i=1; a=rsa-sha256; s=arcselector10001; d=microsoft.example; cv=none; b={seal}"), out);
    let signature = signature_octets(dice, 256);
    folded(
        "DKIM-Signature",
        &format!(
            "v=1; a=rsa-sha256; c=relaxed/relaxed; d=aurora.example; s=selector1; h=From:Date:Subject; b={signature}"
        ),
        out,
    );
    let line = format!(
        "From: <{sender}>\r\nTo: <{}>\r\nSubject: {subject}\r\nThread-Topic: {subject}\r\nThread-Index: {}\r\n\
         Date: Mon, 3 Aug 2026 09:{:02}:{:02} +0000\r\nMessage-ID: <{id}>\r\nAccept-Language: en-US\r\n\
         Content-Language: en-US\r\nX-MS-Has-Attach:\r\nX-MS-TNEF-Correlator:\r\n\
         X-MS-Exchange-Organization-SCL: -1\r\nX-MS-Exchange-MessageSentRepresentingType: 1\r\n\
         X-MS-Exchange-CrossTenant-AuthAs: Internal\r\nX-MS-Exchange-CrossTenant-FromEntityHeader: Hosted\r\n\
         X-MS-Exchange-CrossTenant-Network-Message-Id: {}\r\n\
         X-MS-Exchange-Transport-CrossTenantHeadersStamped: AM0PR0\r\n",
        to.join(">,\r\n <"),
        signature_octets(dice, 30),
        dice.below(60),
        dice.below(60),
        uuid(dice),
    );
    out.extend_from_slice(line.as_bytes());
    folded("X-Microsoft-Antispam-Message-Info", &signature_octets(dice, 1_125), out);
    folded("X-MS-Exchange-AntiSpam-MessageData-ChunkCount", "1", out);
    folded("X-MS-Exchange-AntiSpam-MessageData-0", &signature_octets(dice, 525), out);
    out.extend_from_slice(b"MIME-Version: 1.0\r\n");
}

fn signature(sender: &str) -> String {
    let name = sender.split('@').next().unwrap_or_default();
    format!(
        "Kind regards\n{name}\nPhone +49 30 555{:04}\nThis message and the files sent with it are meant for the people named \
         above. If it has reached you by mistake, please tell the sender and delete it; copying it or passing it on to anybody \
         else is not permitted. We check outgoing mail for malicious content, but cannot rule it out.\n",
        sender.len() * 37 % 10_000
    )
}

fn signature_octets(dice: &mut Dice, count: usize) -> String {
    data_encoding::BASE64.encode(&dice.octets(count))
}

/// Hexadecimal digits.
pub(super) fn hex(dice: &mut Dice, digits: usize) -> String {
    let mut text = data_encoding::HEXLOWER.encode(&dice.octets(digits.div_ceil(2)));
    text.truncate(digits);
    text
}

/// Something of the form of a UUID.
pub(super) fn uuid(dice: &mut Dice) -> String {
    let digits = hex(dice, 32);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

fn shorten(text: &mut String, limit: usize) {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}
