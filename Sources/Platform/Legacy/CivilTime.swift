/// A time of the Gregorian calendar, in UTC.
struct CivilTime: Equatable {
    var year = 1970, month = 1, day = 1, hour = 0, minute = 0, second = 0
    /// 1: Sunday.
    var dayOfWeek = 5

    /// Second, minute, hour, day of week, day, month, year of the century, century.
    var fields: [Int] { [second, minute, hour, dayOfWeek, day, month, year % 100, year / 100] }

    private static let daysPer400Years = 146_097

    /// - Parameter seconds: since 1970. Before the year 0 it is the year 0.
    init(seconds: Int64) {
        let seconds = Int(min(max(seconds, -62_167_219_200), 253_402_300_799))
        let days = (seconds >= 0 ? seconds : seconds - 86_399) / 86_400
        let rest = seconds - days * 86_400
        (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60)
        dayOfWeek = ((days % 7) + 7 + 4) % 7 + 1
        // Years begin in March here, so that the leap day is a year's last.
        let shifted = days + 719_468
        let era = shifted / Self.daysPer400Years
        let dayOfEra = shifted % Self.daysPer400Years
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let marchMonth = (5 * dayOfYear + 2) / 153
        day = dayOfYear - (153 * marchMonth + 2) / 5 + 1
        month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
        year = era * 400 + yearOfEra + (month <= 2 ? 1 : 0)
    }

    /// Seconds since 1970 of any numbers, up to a few hundred each and a year up to 30,000.
    static func seconds(year: Int, month: Int, day: Int, hour: Int, minute: Int, second: Int) -> Int64 {
        let months = year * 12 + max(month, 1) - 1
        let (year, month) = (months / 12, months % 12 + 1)
        let shifted = month <= 2 ? year - 1 : year
        let era = (shifted >= 0 ? shifted : shifted - 399) / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + max(day, 1) - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        let days = era * daysPer400Years + dayOfEra - 719_468
        return Int64(days * 86_400 + hour * 3600 + minute * 60 + second)
    }
}
