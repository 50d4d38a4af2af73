import Grants
import Launcher
import Testing

/// What `roost grants` says.
struct SharingTests {
    private static func domains() -> [DomainReport] {
        var anna = DomainReport(id: 1, name: "anna")
        anna.grants = [
            DomainReport.Grant(reference: 8, count: 256, mapper: 2, isReadOnly: false, mappings: 256, uses: 512),
            DomainReport.Grant(reference: 264, mapper: 9, isReadOnly: true, mappings: 0, uses: 0),
        ]
        anna.ports = [
            DomainReport.Port(number: 1, kind: "store", sent: 7),
            DomainReport.Port(number: 2, kind: "interdomain", remote: 2, remotePort: 3, sent: 40),
            DomainReport.Port(number: 4, kind: "unbound", remote: 2, sent: 0),
        ]
        var bert = DomainReport(id: 2, name: "bert")
        bert.mappings = [
            DomainReport.Mapping(granter: 1, reference: 8, count: 256, isReadOnly: false, isSevered: false),
            DomainReport.Mapping(granter: 5, reference: 11, count: 2, isReadOnly: true, isSevered: true),
        ]
        bert.ports = [DomainReport.Port(number: 3, kind: "interdomain", remote: 1, remotePort: 2, sent: 40)]
        bert.omitted = 3
        return [anna, bert]
    }

    @Test func tablesNameWhoLendsWhatToWhom() {
        #expect(
            SharingTable(Self.domains()).text == """
                GRANTER   REFERENCES  TO        PAGES  RIGHTS  MAPPED  USES
                anna (1)  8-263       bert (2)  256    write   256     512
                anna (1)  264         (9)       1      read    no      0

                GUEST     PORT  KIND         WITH      PORT  RUNG
                anna (1)  1     store                        7
                anna (1)  2     interdomain  bert (2)  3     40
                anna (1)  4     unbound      bert (2)        0
                bert (2)  3     interdomain  anna (1)  2     40

                bert (2) has 2 pages whose granter is gone.
                bert (2) has 3 entries more.

                """)
    }

    @Test func nothingIsSaidInWords() {
        #expect(SharingTable([]).text == "No guest has Xen's interface (--xen).\n")
        #expect(SharingTable([DomainReport(id: 1, name: "a")]).text == "Nothing is granted.\n")
    }

    @Test func whatIsSaidAtTheSocketIsReadAsItWas() throws {
        var reader = DomainReportReader()
        for frame in Self.domains().flatMap(\.frames) {
            let isTaken = reader.take(frame)
            #expect(isTaken, "\(frame.text)")
        }
        #expect(reader.domains == Self.domains())
    }

    @Test(arguments: [
        "", "grant\t1\t1\t1\trw\t0\t0", "domain\t1", "domain\tx\ty", "domain\t1\ta\tb", "elephant\t1",
    ]) func otherLinesAreRefused(_ line: String) {
        var reader = DomainReportReader()
        let taken = [reader.take(ControlFrame(.share, line)), reader.take(ControlFrame(.guest, "domain\t1\tanna"))]
        #expect(taken == [false, false])
    }

    @Test(arguments: [
        "grant\t1\t1\t1\trw\t0", "map\t1\t2\t3\trw", "port\t1\tipi\t\t\t", "more\t-", "more\t1\t2", "grant",
    ])
    func halfALineIsRefused(_ line: String) {
        var reader = DomainReportReader()
        let taken = [reader.take(ControlFrame(.share, "domain\t1\tanna")), reader.take(ControlFrame(.share, line))]
        #expect(taken == [true, false])
    }

    @Test func thePictureLeadsFromPagesToWhereTheyAreSeen() {
        let picture = SharingPicture(Self.domains()).text
        #expect(picture.hasPrefix("<svg "))
        #expect(picture.hasSuffix("</svg>\n"))
        #expect(picture.contains(">anna</text>") && picture.contains(">bert</text>"))
        #expect(picture.contains("256 pages for bert, to write, used 512×"))
        #expect(picture.contains("2 pages of nobody any more"))
        // One line for the pages that are mapped, one for the bell that has two ends.
        #expect(picture.components(of: "<path class=\"page\"") == 1)
        #expect(picture.components(of: "<path class=\"ring\"") == 1)
    }

    @Test func namesAreTextInThePicture() {
        let picture = SharingPicture([DomainReport(id: 1, name: "<a & b>")]).text
        #expect(picture.contains("&lt;a &amp; b&gt;") && !picture.contains("<a & b>"))
    }
}

extension String {
    fileprivate func components(of part: String) -> Int { ranges(of: part).count }
}

/// `--file`.
struct FileOptionTests {
    @Test(arguments: [
        ("ring", "ring", "bin/ring"), ("a/b/ring", "a/b/ring", "bin/ring"), ("x:/etc/y", "x", "etc/y"),
        ("x:/etc/", "x", "etc/x"), ("a:b:/c", "a:b", "c"), ("x:", "x", "bin/x"), ("x:/", "x", "x"),
    ]) func namesAFileAndAPlace(_ text: String, _ path: String, _ place: String) throws {
        let option = try FileOption(parsing: text)
        #expect((option.path, option.place) == (path, place))
    }

    @Test(arguments: ["", ":/x", "x:y", "x:/a/../b", "x:/./a"]) func refusesOthers(_ text: String) {
        #expect(throws: ConfigurationError.self) { try FileOption(parsing: text) }
    }
}
