//! Findings: what is wrong or odd with a message.

use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The message is accepted; somebody should look.
    Warning,
    /// The message is refused.
    Error,
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The language of the sentence of a finding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Dutch.
    Dutch,
}

/// One thing wrong or odd with a message, and where. Never holds a value of
/// the message: neither text nor the name of a tag that the schema does not
/// know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which rule.
    pub code: Code,
    /// How bad it is for this party.
    pub severity: Severity,
    /// Tags with positions below the root, `Wrkgvr[1]/Wrknmr[3]/Gebdat[1]`;
    /// empty when the place is not inside the message.
    pub path: String,
    /// Line, counted from 1; 0 when there is no place.
    pub line: u64,
    /// Column in characters, counted from 1; 0 when there is no place.
    pub column: u64,
    /// What the schema asked for (a tag, a facet), never what was found.
    pub expected: Option<String>,
}

impl Finding {
    /// A finding with the default severity of its rule, without a place.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self {
            code,
            severity: code.severity(),
            path: String::new(),
            line: 0,
            column: 0,
            expected: None,
        }
    }

    /// The sentence of the rule, with what was expected.
    #[must_use]
    pub fn message(&self, language: Language) -> String {
        let sentence = self.code.sentence(language);
        match &self.expected {
            None => sentence.to_owned(),
            Some(expected) => format!("{sentence} ({expected})"),
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $severity:ident, $english:literal, $dutch:literal;)+) => {
        /// The rules that can make a finding. The code is stable: senders
        /// script against it. `docs/findings.md` explains each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $($(#[$doc])* $variant),+ }

        impl Code {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable code.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// The severity that holds unless a mapping sets another.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity),+ }
            }

            /// One sentence for a person.
            #[must_use]
            pub fn sentence(self, language: Language) -> &'static str {
                match (self, language) {
                    $((Self::$variant, Language::English) => $english,
                      (Self::$variant, Language::Dutch) => $dutch,)+
                }
            }

            /// The rule with this code.
            #[must_use]
            pub fn from_code(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

codes! {
    /// The bytes are not XML.
    NotWellFormed = "not_well_formed", Error,
        "The document is not well-formed XML.",
        "Het document is geen welgevormde XML.";
    /// A DOCTYPE or an entity declaration.
    DoctypeForbidden = "doctype_forbidden", Error,
        "A DOCTYPE or entity declaration is not allowed.",
        "Een DOCTYPE of entiteitdeclaratie is niet toegestaan.";
    /// A processing instruction other than the XML declaration.
    InstructionForbidden = "instruction_forbidden", Error,
        "A processing instruction is not allowed.",
        "Een processing instruction is niet toegestaan.";
    /// A reference to an entity that XML does not define itself.
    EntityUnknown = "entity_unknown", Error,
        "A reference names an entity that is not one of the five of XML.",
        "Een verwijzing noemt een entiteit die XML zelf niet kent.";
    /// An encoding other than the three supported ones.
    EncodingUnsupported = "encoding_unsupported", Error,
        "The encoding must be UTF-8, or a declared ISO-8859-1 or Windows-1252.",
        "De codering moet UTF-8 zijn, of een gedeclareerde ISO-8859-1 of Windows-1252.";
    /// The bytes do not fit the encoding.
    EncodingBroken = "encoding_broken", Error,
        "The bytes do not fit the encoding of the document.",
        "De bytes passen niet bij de codering van het document.";
    /// Deeper than 64 levels, more than 32 attributes, a name above 256 bytes, or a text above the limit.
    LimitExceeded = "limit_exceeded", Error,
        "The document exceeds a structural limit.",
        "Het document overschrijdt een structurele grens.";
    /// The gzip stream is broken or a bomb.
    CompressionBroken = "compression_broken", Error,
        "The gzip stream is broken.",
        "De gzip-gegevens zijn beschadigd.";
    /// Not one of the messages of the edition.
    MessageUnknown = "message_unknown", Error,
        "The message is not one of the messages of this edition.",
        "Het bericht is geen bericht van deze editie.";
    /// The root element is not the message's, nor an alias that the mapping accepts.
    RootUnexpected = "root_unexpected", Warning,
        "The root element is not the one of this message.",
        "Het hoofdelement is niet dat van dit bericht.";
    /// The namespace is not the one of the party's edition.
    NamespaceUnexpected = "namespace_unexpected", Warning,
        "The namespace is not the one of the edition agreed with this party.",
        "De namespace is niet die van de editie die met deze partij is afgesproken.";
    /// `VnrBrCd` is not the one of the party's edition.
    VersionUnexpected = "version_unexpected", Warning,
        "The version of the message is not the one of the edition agreed with this party.",
        "De versie van het bericht is niet die van de editie die met deze partij is afgesproken.";
    /// A tag that the schema does not know here.
    ElementUnknown = "element_unknown", Error,
        "The schema knows no such element at this place.",
        "Het schema kent hier geen element met deze naam.";
    /// A known tag in the wrong place of the sequence.
    ElementMisplaced = "element_misplaced", Error,
        "The element is out of order.",
        "Het element staat niet op de juiste plaats.";
    /// A mandatory element is not there.
    ElementMissing = "element_missing", Error,
        "A mandatory element is missing.",
        "Een verplicht element ontbreekt.";
    /// More often than the schema allows.
    ElementRepeated = "element_repeated", Error,
        "The element occurs more often than allowed.",
        "Het element komt vaker voor dan toegestaan.";
    /// An attribute; the standard has none.
    AttributeUnknown = "attribute_unknown", Error,
        "The schema allows no such attribute.",
        "Het schema staat dit attribuut niet toe.";
    /// Text between elements.
    TextUnexpected = "text_unexpected", Error,
        "Text is not allowed between elements.",
        "Tekst tussen elementen is niet toegestaan.";
    /// Not a value of its XSD type.
    ValueType = "value_type", Error,
        "The value does not have the right form.",
        "De waarde heeft niet de juiste vorm.";
    /// Longer, shorter or with more digits than allowed.
    ValueLength = "value_length", Error,
        "The value is too long, too short or has too many digits.",
        "De waarde is te lang, te kort of heeft te veel cijfers.";
    /// Outside the range.
    ValueRange = "value_range", Error,
        "The value is outside its range.",
        "De waarde valt buiten het toegestane bereik.";
    /// Does not match the pattern.
    ValuePattern = "value_pattern", Error,
        "The value does not match its pattern.",
        "De waarde past niet bij het patroon.";
    /// Not one of the enumerated codes.
    ValueCode = "value_code", Error,
        "The value is not one of the codes of the list.",
        "De waarde is geen code uit de lijst.";
    /// A code outside a list of which 2017 is not certain.
    CodeUnknown = "code_unknown", Warning,
        "The code is not in the list of this edition, of which not all values are certain.",
        "De code staat niet in de lijst van deze editie, waarvan niet alle waarden zeker zijn.";
    /// More findings than are listed.
    TooManyFindings = "too_many_findings", Warning,
        "There are more findings than are listed.",
        "Er zijn meer bevindingen dan hier getoond.";
    /// Dates contradict each other.
    DateOrder = "date_order", Warning,
        "The dates contradict each other.",
        "De datums spreken elkaar tegen.";
    /// First day of absence far ahead.
    DateFuture = "date_future", Warning,
        "The first day of absence is more than 31 days ahead.",
        "De eerste verzuimdag ligt meer dan 31 dagen in de toekomst.";
    /// `EndVrzmJN` = J without a recovery date.
    ClosedWithoutRecovery = "closed_without_recovery", Warning,
        "The case is closed without a date of recovery.",
        "Het verzuimgeval is beëindigd zonder hersteldatum.";
    /// `EndVrzmJN` = N with a recovery date.
    OpenWithRecovery = "open_with_recovery", Warning,
        "The case is open but has a date of recovery.",
        "Het verzuimgeval loopt nog maar heeft een hersteldatum.";
    /// A percentage above 100.
    PercentageRange = "percentage_range", Error,
        "A percentage is above 100.",
        "Een percentage is hoger dan 100.";
    /// Partial absence in the first report.
    PartialFromEmployer = "partial_from_employer", Warning,
        "The first report is partial; an employer may record a degree only after the company doctor advised.",
        "De eerste melding is gedeeltelijk; een werkgever mag een mate van verzuim pas na advies van de bedrijfsarts vastleggen.";
    /// A gap in the numbering of reports.
    CaseNumberGap = "case_number_gap", Warning,
        "The report number leaves a gap after the last one of this case.",
        "Het volgnummer sluit niet aan op het vorige van dit verzuimgeval.";
    /// A step back in the numbering of reports.
    CaseNumberBack = "case_number_back", Warning,
        "The report number is lower than the last one of this case.",
        "Het volgnummer is lager dan het vorige van dit verzuimgeval.";
    /// Same case and number with other content.
    DuplicateReport = "duplicate_report", Warning,
        "This report number was used before in this case with other content.",
        "Dit volgnummer is in dit verzuimgeval al eerder met een andere inhoud gebruikt.";
    /// The message's own date is ahead.
    ReferenceDate = "reference_date", Warning,
        "The creation date of the message is more than a day ahead.",
        "De aanmaakdatum van het bericht ligt meer dan een dag in de toekomst.";
    /// The file is too large for the business rules of the `validate` command.
    RulesSkipped = "rules_skipped", Warning,
        "The business rules were not checked: the file is larger than 16 MiB.",
        "De bedrijfsregels zijn niet gecontroleerd: het bestand is groter dan 16 MiB.";
    /// `SofiNr` fails the eleven-test.
    BsnInvalid = "bsn_invalid", Warning,
        "The citizen service number fails the eleven-test.",
        "Het burgerservicenummer voldoet niet aan de elfproef.";
    /// The BSN of this person used as a key.
    BsnAsKey = "bsn_as_key", Error,
        "A key holds the person's citizen service number.",
        "Een sleutel bevat het burgerservicenummer van de persoon.";
    /// An empty key of a person, an employment or a case.
    KeyEmpty = "key_empty", Error,
        "The key of a person, an employment or a case is empty.",
        "De sleutel van een persoon, een dienstverband of een verzuimgeval is leeg.";
    /// A key that looks like a BSN.
    BsnSuspect = "bsn_suspect", Warning,
        "A key looks like a citizen service number.",
        "Een sleutel lijkt op een burgerservicenummer.";
    /// A placeholder such as a phone number of zeros.
    Placeholder = "placeholder", Warning,
        "A placeholder is treated as absent.",
        "Een schijnwaarde is als afwezig behandeld.";
    /// A code that the party's table does not translate.
    CodeRejected = "code_rejected", Error,
        "The mapping of this party has no translation for the code.",
        "De vertaaltabel van deze partij kent de code niet.";
    /// `IdInzndr` is not one of the party's sender ids.
    SenderMismatch = "sender_mismatch", Error,
        "The sender named in the message is not this party.",
        "De inzender in het bericht is niet deze partij.";
    /// `IdOntvngr` is no receiver of this employer.
    ReceiverMismatch = "receiver_mismatch", Warning,
        "The receiver named in the message is no receiver of this employer; its part is parked.",
        "De ontvanger in het bericht is geen ontvanger van deze werkgever; dit deel is geparkeerd.";
    /// An employer that nobody configured.
    EmployerUnknown = "employer_unknown", Warning,
        "The employer is not configured; its part is parked.",
        "De werkgever is niet ingericht; dit deel is geparkeerd.";
    /// An employer of another party.
    EmployerForeign = "employer_foreign", Error,
        "The employer belongs to another party.",
        "De werkgever hoort bij een andere partij.";
    /// No route that is valid today.
    NoRoute = "no_route", Warning,
        "The employer has no valid route for this message; its part is parked.",
        "De werkgever heeft geen geldige route voor dit bericht; dit deel is geparkeerd.";
    /// No processing agreement in force.
    NoAgreement = "no_agreement", Error,
        "There is no processing agreement in force for the employer.",
        "Er is voor de werkgever geen verwerkersovereenkomst van kracht.";
    /// A correction or withdrawal of a case that the receiver never got.
    CaseUnknown = "case_unknown", Warning,
        "A correction or withdrawal names a case that is not known; it is parked.",
        "Een correctie of intrekking noemt een onbekend verzuimgeval; deze is geparkeerd.";
    /// A changed key that cannot be followed.
    KeyChangeUnconfirmed = "key_change_unconfirmed", Warning,
        "A changed key could not be confirmed by the date of birth; the part is parked.",
        "Een gewijzigde sleutel kon niet met de geboortedatum worden bevestigd; dit deel is geparkeerd.";
    /// A return message about a person whom this tenant never reported.
    PersonUnknown = "person_unknown", Warning,
        "The message names a person of whom no report was exchanged; it is parked.",
        "Het bericht noemt een persoon over wie geen melding is uitgewisseld; het is geparkeerd.";
    /// A document of a kind that the tenant does not take.
    DocumentKind = "document_kind", Warning,
        "Documents of this kind may not go to this receiver; the document is parked.",
        "Documenten van deze soort mogen niet naar deze ontvanger; het document is geparkeerd.";
    /// What would be sent is not valid against the schema.
    ReleaseInvalid = "release_invalid", Warning,
        "What may be sent of the message would not be valid; the part is parked.",
        "Wat van het bericht verzonden mag worden zou niet geldig zijn; dit deel is geparkeerd.";
    /// A Retourmelding about a message that was not handed to this party.
    AnswerUnmatched = "answer_unmatched", Error,
        "The answer names no message that was handed to this party.",
        "De retourmelding noemt geen bericht dat aan deze partij is aangeboden.";
    /// Too much is parked already for this party.
    ParkingFull = "parking_full", Error,
        "Too much of this party is parked already; configure its employers first.",
        "Er is al te veel van deze partij geparkeerd; richt eerst de werkgevers in.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_explained_in_the_documentation() {
        let page = include_str!("../../docs/findings.md");
        for code in Code::ALL {
            assert!(
                page.contains(&format!("`{code}`")),
                "{code} is not in docs/findings.md"
            );
            assert_eq!(Code::from_code(code.as_str()), Some(*code));
        }
    }
}
