//! The journal report around a message, as the journal agent of Exchange Online writes it.

use super::{
    Report,
    dice::Dice,
    message::{Company, Message, uuid},
};

/// Wraps `message` as report `number`.
pub(super) fn wrap(dice: &mut Dice, company: &Company, message: &Message, number: usize) -> Report {
    let boundary = format!("_{}_", uuid(dice));
    let mut octets = Vec::with_capacity(message.octets.len() + 3_000);
    octets.extend_from_slice(outer(dice, message, number, &boundary).as_bytes());
    octets.extend_from_slice(envelope(dice, company, message).as_bytes());
    octets.extend_from_slice(format!("\r\n--{boundary}\r\nContent-Type: message/rfc822\r\n\r\n").as_bytes());
    let start = octets.len();
    octets.extend_from_slice(&message.octets);
    let original = start..octets.len();
    octets.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    let parts = message.parts.iter().map(|part| part.moved(start)).collect();
    Report { number, octets, original, parts }
}

fn outer(dice: &mut Dice, message: &Message, number: usize, boundary: &str) -> String {
    let seconds = format!("{:02}:{:02}", number / 60 % 60, number % 60);
    format!(
        "Received: from EUR05-DB8-obe.outbound.protection.outlook.example\r\n \
         (mail-db8eur05lp2104.outbound.protection.outlook.example [192.0.2.10])\r\n by mail.protection.outlook.example with \
         ESMTPS (version=TLSv1.3); Mon, 3 Aug 2026 10:{seconds} +0000\r\n\
         Content-Type: multipart/mixed;\r\n\tboundary=\"{boundary}\"\r\n\
         Subject: {subject}\r\nTo: <{to}>\r\nFrom: <{from}>\r\nMIME-Version: 1.0\r\n\
         Sender:\r\n\t<MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@aurora.example>\r\n\
         Message-ID: <{number:08}-{uuid}@journal.report.generator>\r\n\
         Date: Mon, 3 Aug 2026 10:{seconds} +0000\r\nX-MS-PublicTrafficType: Email\r\nX-MS-Journal-Report:\r\n\
         X-MS-Exchange-Parent-Message-Id:\r\n\t<{id}>\r\nAuto-Submitted: auto-generated\r\n\
         X-MS-Exchange-Generated-Message-Source: Journal Agent\r\n\
         X-MS-TrafficTypeDiagnostic: AM7PR01MB6001:JournalingReport\r\n\
         X-LD-Processed: {tenant},ExtAddr\r\nX-OriginatorOrg: aurora.example\r\n\
         X-MS-Exchange-CrossTenant-Network-Message-Id: {network}\r\n\
         X-MS-Exchange-CrossTenant-FromEntityHeader: Hosted\r\n\
         X-MS-Exchange-Transport-CrossTenantHeadersStamped: AM7PR01MB6001\r\n\r\n\
         --{boundary}\r\nContent-Type: text/plain; charset=\"us-ascii\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n",
        subject = message.subject,
        to = message.to.join(">,\r\n\t<"),
        from = message.sender,
        id = message.id,
        uuid = uuid(dice),
        network = uuid(dice),
        tenant = "d5bb3746-fdf8-424d-ba9d-3d7d407756a9",
    )
}

/// Who it really went to: every addressee, often also one in blind copy, sometimes members of a list.
fn envelope(dice: &mut Dice, company: &Company, message: &Message) -> String {
    let mut text =
        format!("Sender: {}\r\nSubject: {}\r\nMessage-Id: <{}>\r\n", message.sender, message.subject, message.id);
    for address in &message.to {
        text += &format!("To: {address}\r\n");
    }
    if dice.percent(30) {
        text += &format!("Cc: {}\r\n", company.employee(dice));
    }
    if dice.percent(10) {
        text += &format!("Bcc: {}\r\n", company.employee(dice));
    }
    if dice.percent(8) {
        for _ in 0..dice.between(2, 9) {
            text += &format!("To: {}, Expanded: all.sales@aurora.example\r\n", company.employee(dice));
        }
    }
    text
}
