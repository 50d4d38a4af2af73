internal import GuestMemory
internal import HostInterface

//H:335 From one Guest to another
//
// To send, a Guest names a key and a full buffer. Its own thread, the one that
// was running it, looks for a Guest that has bound that key, finds a free
// buffer in its array, and copies: straight from one memory into the other,
// and nobody else is involved. All of it happens under one lock, so that no
// Guest goes away while something is being put into it.
//
// If the receiver has no free buffer it is interrupted all the same, for it
// may not know, and gets one chance to put some in; the lock is let go for
// that. Then the send has failed, and says so by a `used_len` that is not what
// was to be sent. What to do about that is the Guests' business, as on any network.

extension LguestGuest {
    /// BIND_DMA. False: there is no room, no such interrupt, or nothing to undo.
    func bind(
        key address: GuestPhysicalAddress, array: GuestPhysicalAddress, count: Int, irq: Int, _ memory: GuestMemory
    ) -> Bool {
        guard irq < LguestIRQ.count, count <= LguestDMA.maximumBuffers || irq == 0 else { return false }
        memory.findOverlays()
        guard let key = DMAKey(address, of: self, in: memory) else {
            kill("bad dma key \(address)")
            return false
        }
        return host.withRegistry { registry in
            guard irq != 0 else { return registry.unbind(key, guest: self, array: array) }
            return registry.bind(
                DMABinding(key: key, guest: self, memory: memory, array: array, count: count, irq: irq))
        }
    }

    /// SEND_DMA.
    func send(key address: GuestPhysicalAddress, buffer: GuestPhysicalAddress, _ memory: GuestMemory) {
        guard var key = DMAKey(address, of: self, in: memory) else {
            return kill("bad sending DMA key \(address)")
        }
        if !key.isShared {
            // The Launcher may have mapped something there since we looked.
            memory.findOverlays()
            key = DMAKey(address, of: self, in: memory) ?? key
        }
        guard key.isShared else {
            pending = .dma(buffer: buffer.rawValue, key: address.rawValue)
            return
        }
        if transfer(key, buffer, memory) == .full {
            HostThread.yield()
            _ = transfer(key, buffer, memory)
        }
    }

    private enum Transfer {
        case done, full, failed
    }

    private func transfer(_ key: DMAKey, _ buffer: GuestPhysicalAddress, _ memory: GuestMemory) -> Transfer {
        host.withRegistry { registry in
            guard let binding = registry.receiver(of: key, from: self) else { return .failed }
            let free: GuestPhysicalAddress?
            do throws(DMAFault) { free = try binding.findFree() } catch {
                binding.guest.kill(error.reason)
                return .failed
            }
            // Whatever becomes of it, a receiver without a buffer is told.
            guard let free else {
                try? binding.guest.raise(irq: binding.irq)
                return .full
            }
            let target: DMABuffer, source: DMABuffer
            do throws(DMAFault) { target = try DMABuffer(at: free, in: binding.memory) } catch {
                binding.guest.kill(error.reason)
                return failed(buffer, memory)
            }
            guard memory.contains(buffer, LguestDMA.byteCount) else {
                kill("bad address in sending DMA \(buffer)")
                return .failed
            }
            do throws(DMAFault) { source = try DMABuffer(at: buffer, in: memory) } catch {
                kill(error.reason)
                return failed(buffer, memory)
            }
            let count = DMABuffer.copy(source, from: memory, to: target, in: binding.memory)
            DMAUsedLength.store(UInt32(count), at: buffer, in: memory)
            if count == 0, source.count > 0 { return .failed }
            DMAUsedLength.store(UInt32(count), at: free, in: binding.memory)
            binding.advance()
            try? binding.guest.raise(irq: binding.irq)
            return .done
        }
    }

    /// Nothing was sent.
    private func failed(_ buffer: GuestPhysicalAddress, _ memory: GuestMemory) -> Transfer {
        DMAUsedLength.store(0, at: buffer, in: memory)
        return .failed
    }
}
//:

extension LguestGuest {
    /// NOTIFY: to the eventfd on that address, or else to the Launcher.
    func notify(_ address: UInt64) {
        for target in eventFDs where target.address == address { return target.signal() }
        pending = .notify(address)
    }
}
