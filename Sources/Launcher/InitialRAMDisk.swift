package import HostInterface

//L:100 The smallest Linux that is any use
//
// A kernel wants a program to run. Ours is /init, a shell script for the one
// binary that we bring, a statically linked busybox. The script mounts what
// every program expects, and then talks to the Host over the four serial
// ports that every PC has known since 1987, and that every stock kernel has
// its driver built in for:
//
//     ttyS0  the kernel's log, which the Host keeps or shows
//     ttyS1  the user: standard input and output (or hvc0, see D:120)
//     ttyS2  standard error, when it has a way of its own
//     ttyS3  a few words between /init and the Host:
//                Guest to Host   ready            input may come now
//                                exit STATUS      it is over
//                Host to Guest   ROWS COLUMNS     the window's size is now this
//
// So nothing that the kernel prints is ever among the output of a command.
//
// There are two kinds of session. In a *terminal* session, ttyS1 is the
// session's controlling terminal, with job control and all, and it is for the
// Guest to echo and to turn ^C into a signal. In a *piped* session, programs
// see pipes, as they would behind ssh without a terminal, and ttyS1 carries
// bytes. A serial line has no end of file and no way to send a byte without
// its being interpreted; but a Linux tty in canonical mode has both: the EOF
// character ends a line without being part of it, an empty line so ended is
// the end of file, and after the literal-next character any byte stands for
// itself (termios(3)). `InputEncoder` is the other end of that.
//
// A status cannot come through the exit port at 0xf4: no stock kernel lets a
// script write to a port (Debian's has CONFIG_DEVPORT off).

/// What /init is to do.
package struct Session: Equatable, Sendable {
    package enum Kind: Equatable, Sendable { case terminal, piped }

    package var kind: Kind
    /// What to run; empty for a shell.
    package var command: [[UInt8]]
    /// The device in the Guest that is the user's: ttyS1, or hvc0 where there is a virtio console.
    package var port: String
    /// For a terminal session.
    package var windowSize: WindowSize?
    /// TERM of the user.
    package var terminalName: String?
    /// See `GuestConfiguration.neighbours`.
    package var neighbours: [Neighbour]

    package init(
        kind: Kind, command: [[UInt8]] = [], port: String = "ttyS1", windowSize: WindowSize? = nil,
        terminalName: String? = nil, neighbours: [Neighbour] = []
    ) {
        self.kind = kind
        self.command = command
        self.port = port
        self.windowSize = windowSize
        self.terminalName = terminalName
        self.neighbours = neighbours
    }
}

/// A file for the initramfs.
package struct GuestFile: Sendable {
    package let place: String
    package let contents: [UInt8]
    package let mode: UInt32

    package init(place: String, contents: [UInt8], mode: UInt32) {
        (self.place, self.contents, self.mode) = (place, contents, mode)
    }
}

/// Builds the initramfs.
package enum InitialRAMDisk {
    /// - Parameters:
    ///   - busybox: the binary, statically linked.
    ///   - modules: in the order in which they can be loaded.
    ///   - files: what else there is, with its mode; the last of two at one place counts.
    package static func build(
        session: Session, busybox: [UInt8], modules: [KernelModule] = [], files: [GuestFile] = []
    ) -> [UInt8] {
        var archive = CPIOArchive()
        for folder in ["bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "usr/sbin"] {
            archive.addFolder(folder)
        }
        // The kernel opens it for /init before anything is mounted.
        archive.addCharacterDevice("dev/console", major: 5, minor: 1)
        archive.addFile("bin/busybox", busybox, mode: 0o755)
        archive.addLink("bin/sh", to: "busybox")
        archive.addFile("init", initScript, mode: 0o755)
        archive.addFile("etc/passwd", "root::0:0:root:/root:/bin/sh\n")
        archive.addFile("etc/group", "root:x:0:\n")
        archive.addFile("etc/hostname", (session.neighbours.first?.name ?? "guest") + "\n")
        let hosts = session.neighbours.map { "\($0.address) \($0.name)\n" }
        archive.addFile("etc/hosts", "127.0.0.1 localhost\n" + hosts.joined())
        archive.addFile("etc/profile", profile)
        archive.addFile("etc/roost/lease", leaseScript, mode: 0o755)
        // busybox's own would ask an init that is not there; these tell the kernel.
        for name in ["poweroff", "reboot", "halt"] {
            let action = name == "halt" ? "poweroff" : name
            archive.addFile("usr/local/sbin/\(name)", "#!/bin/sh\nsync\nexec busybox \(action) -f\n", mode: 0o755)
        }
        archive.addFile("etc/roost/session", settings(of: session))
        archive.addFile("etc/roost/command", script(running: session.command), mode: 0o755)
        for module in modules { archive.addFile(String(module.path.drop { $0 == "/" }), module.contents) }
        archive.addFile("etc/roost/modules", modules.map { "/" + $0.path + "\n" }.joined())
        for file in files { archive.addFile(file.place, file.contents, mode: file.mode) }
        return archive.finished()
    }

    private static func settings(of session: Session) -> String {
        var lines = ["kind=\(session.kind)", "user=/dev/\(session.port)"]
        if session.command.isEmpty { lines.append("shell=yes") }
        if let size = session.windowSize { lines.append("rows=\(size.rows) columns=\(size.columns)") }
        if let own = session.neighbours.first { lines.append("address=\(own.address)/\(Neighbour.prefixLength)") }
        // TERM ends in a script, so only what a terminal's name is made of may pass.
        let allowed = Set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-+._")
        if let name = session.terminalName, name.allSatisfy(allowed.contains), !name.isEmpty {
            lines.append("term=\(name)")
        }
        return lines.map { $0 + "\n" }.joined()
    }

    /// A shell script that becomes `command`, whatever bytes that has. The
    /// shell's single quotes make all of them plain but themselves.
    package static func script(running command: [[UInt8]]) -> [UInt8] {
        var text = Array("#!/bin/sh\nexec".utf8)
        if command.isEmpty { text += Array(" sh".utf8) }
        for argument in command {
            text += Array(" '".utf8)
            for byte in argument {
                if byte == 0x27 { text += Array("'\\''".utf8) } else { text.append(byte) }
            }
            text.append(0x27)
        }
        text.append(0x0a)
        return text
    }

    private static let profile = """
        export PS1='\\w # '
        alias ll='ls -l'

        """

    /// What busybox's DHCP client calls to have its news acted upon.
    private static let leaseScript = """
        #!/bin/sh
        case $1 in
            deconfig) ip addr flush dev $interface ;;
            bound | renew)
                ip addr replace $ip/$mask dev $interface
                [ -n "$router" ] && ip route replace default via ${router%% *} dev $interface
                [ -n "$domain" ] && echo "search $domain" >/etc/resolv.conf || : >/etc/resolv.conf
                for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done ;;
        esac

        """

    /// PID 1. It ends by telling the Host how it went, and the Host turns the
    /// power off; should the Host be deaf, the script does it.
    package static let initScript = """
        #!/bin/busybox sh
        export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
        /bin/busybox --install -s
        mount -t devtmpfs devtmpfs /dev
        mount -t proc proc /proc
        mount -t sysfs sysfs /sys
        mkdir -p /dev/pts /dev/shm
        mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
        mount -t tmpfs -o mode=1777 tmpfs /dev/shm
        mount -t tmpfs -o mode=1777 tmpfs /tmp
        mount -t tmpfs tmpfs /run
        ln -s /proc/self/fd /dev/fd
        hostname -F /etc/hostname
        ip link set lo up 2>/dev/null
        while read -r module; do insmod "$module"; done </etc/roost/modules

        # A system on a disk: root= and its relatives are for us, as they are
        # for every initramfs. The disk's name may come after its driver.
        root= rootfstype= rootflags= mode=ro init=/sbin/init
        for word in $(cat /proc/cmdline); do
            case $word in
                root=*) root=${word#root=} ;;
                rootfstype=*) rootfstype="-t ${word#rootfstype=}" ;;
                rootflags=*) rootflags=",${word#rootflags=}" ;;
                init=*) init=${word#init=} ;;
                ro | rw) mode=$word ;;
            esac
        done
        if [ -n "$root" ]; then
            case $root in UUID=* | LABEL=*) wanted=$root ;; *) wanted= ;; esac
            for try in 1 2 3 4 5 6 7 8 9 10; do
                [ -n "$wanted" ] && root=$(findfs "$wanted" 2>/dev/null)
                [ -b "$root" ] && break
                sleep 0.1
            done
            mkdir -p /sysroot
            if mount $rootfstype -o "$mode$rootflags" "$root" /sysroot; then
                for folder in dev proc sys run; do mount -o move /$folder /sysroot/$folder; done
                exec switch_root /sysroot "$init"
            fi
            echo "roost: cannot mount ${wanted:-$root} as the root file system; the disks are:" >/dev/kmsg
            for disk in /sys/block/vd*; do
                [ -e "$disk" ] && echo "roost:   /dev/${disk##*/}" >/dev/kmsg
            done
            poweroff -f
        fi

        # A network card is a network: COMMAND need not know how it came up.
        kind=piped user=/dev/ttyS1 shell=no rows=0 columns=0 term=linux address=
        . /etc/roost/session
        if [ -e /sys/class/net/eth0 ]; then
            ip link set eth0 up
            if [ "$address" ]; then
                ip addr add "$address" dev eth0
            else
                udhcpc -i eth0 -s /etc/roost/lease -n -q -t 5 -T 1 >/dev/null 2>/run/udhcpc.log ||
                    echo "roost: eth0: no answer to DHCP" >/dev/kmsg
            fi
        fi
        export TERM=$term
        cd /root

        # The line to the Host, and the user's. Open from now on, so that their settings stay.
        exec 9<>/dev/ttyS3
        stty -F /dev/ttyS3 115200 raw -echo
        tell() { echo "$1" >&9; }
        # A device that is opened before it is there becomes a file, which takes all output and shows none.
        for try in 1 2 3 4 5 6 7 8 9 10; do
            [ -c $user ] && break
            sleep 0.1
        done
        if ! [ -c $user ]; then
            tell ready
            echo "roost: the guest's kernel has no $user: it found no such device, or has no driver for it" >/dev/ttyS2
            tell "exit 70"
            poweroff -f
        fi
        exec 8<>$user

        if [ $kind = terminal ]; then
            stty -F $user 115200 sane crtscts erase '^?' rows $rows cols $columns
            while read -r rows columns; do
                stty -F $user rows "$rows" cols "$columns"
            done <&9 &
            tell ready
            if [ $shell = yes ]; then
                setsid -c sh -l <>$user >&0 2>&1 8>&- 9>&-
                status=0
            else
                setsid -c /etc/roost/command <>$user >&0 2>&1 8>&- 9>&-
                status=$?
            fi
        else
            # Canonical, and nothing special but ^D and ^V.
            stty -F $user 115200 raw -echo crtscts
            stty -F $user icanon iexten -isig intr undef quit undef erase undef kill undef \\
                werase undef rprnt undef eol undef eol2 undef susp undef eof '^D' lnext '^V'
            stty -F /dev/ttyS2 115200 raw -echo
            mkfifo /run/stdin /run/stdout /run/stderr
            # cat would have sendfile(2) hold a pipe's lock for as long as nobody
            # types, and whoever closes the pipe must wait for it; dd just reads.
            # A FIFO opened for both ends at once does not block, and so its two
            # ends do not either. To wait in open(2) for the other side would be
            # to fail, now and then, when a child's end interrupts it.
            exec 3<>/run/stdin 4</run/stdin 5>/run/stdin 3>&-
            dd bs=4096 <$user >&5 2>/dev/null 4<&- 5>&- 8>&- 9>&- &
            exec 5>&- 3<>/run/stdout 5</run/stdout 6>/run/stdout 3>&-
            dd bs=4096 <&5 >$user 2>/dev/null 4<&- 5<&- 6>&- 8>&- 9>&- &
            output=$!
            exec 5<&- 3<>/run/stderr 5</run/stderr 7>/run/stderr 3>&-
            dd bs=4096 <&5 >/dev/ttyS2 2>/dev/null 4<&- 5<&- 6>&- 7>&- 8>&- 9>&- &
            errors=$!
            exec 5<&-
            tell ready
            /etc/roost/command <&4 >&6 2>&7 4<&- 6>&- 7>&- 8>&- 9>&-
            status=$?
            exec 4<&- 6>&- 7>&-
            # What they still hold must have left before the word that it is over.
            wait $output $errors
        fi
        tell "exit $status"
        sync
        poweroff -f

        """
}
//:
