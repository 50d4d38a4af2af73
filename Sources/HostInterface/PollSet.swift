internal import Glibc

/// A list of file descriptors and what is awaited of each (poll(2)).
package struct PollSet: Sendable {
    package struct Events: OptionSet, Sendable {
        package let rawValue: Int16
        package init(rawValue: Int16) { self.rawValue = rawValue }

        package static let read = Events(rawValue: Int16(POLLIN))
        package static let urgent = Events(rawValue: Int16(POLLPRI))
        package static let write = Events(rawValue: Int16(POLLOUT))
        /// Always reported, awaited or not.
        package static let error = Events(rawValue: Int16(POLLERR) | Int16(POLLNVAL))
        package static let hangUp = Events(rawValue: Int16(POLLHUP))
    }

    private var entries: [pollfd] = []

    package init() {}

    package var count: Int { entries.count }

    package func descriptor(_ index: Int) -> Int32 { entries[index].fd }

    package mutating func removeAll() { entries.removeAll(keepingCapacity: true) }

    /// - Parameter descriptor: if negative, an entry of which nothing is ever heard.
    package mutating func append(_ descriptor: Int32, _ events: Events) {
        entries.append(pollfd(fd: descriptor, events: events.rawValue, revents: 0))
    }

    /// Sleeps until something happens, or until the time is over; forever if it
    /// is negative.
    ///
    /// - Returns: false if the kernel could not do it; nothing is ready then.
    package mutating func wait(milliseconds: Int32) -> Bool {
        while unsafe poll(&entries, nfds_t(entries.count), milliseconds) < 0 {
            if Errno.current == .interrupted { continue }
            for index in entries.indices { entries[index].revents = 0 }
            return false
        }
        return true
    }

    /// What the last `wait` found.
    package func ready(_ index: Int) -> Events { Events(rawValue: entries[index].revents) }

    package func awaitsSame(as other: PollSet) -> Bool {
        entries.elementsEqual(other.entries) { $0.fd == $1.fd && $0.events == $1.events }
    }
}
