# What ActiveJob makes of arguments: interop/recordings/activejob-VERSION.json is what this prints.
# Needs the gems activejob and globalid.
require "active_job"
require "active_job/arguments"
require "active_support"
require "active_support/time"
require "bigdecimal"
require "json"
require "globalid"
Time.zone = "Europe/Berlin"
class Person
  include GlobalID::Identification
  attr_reader :id
  def initialize(id) = @id = id
end
GlobalID.app = "app"
class Call
  def keywords(*args) = args
  ruby2_keywords :keywords
end
def keywords(...) = Call.new.keywords(...)
t = Time.at(1795537424, 123456789, :nsec)
args = {
  "plain" => [1, "a", nil, true, 1.5, [1, [2]]],
  "symbol" => [:fast],
  "symbols" => [{plain: "hash", "s" => :x}],
  "indifferent" => [{a: 1}.with_indifferent_access],
  "keywords" => keywords(42, language: "de", at: Date.new(2026, 11, 25)),
  "date" => [Date.new(2026, 11, 25)],
  "time" => [t.utc, t.getlocal("+09:00")],
  "datetime" => [DateTime.new(2026, 11, 25, 10, 0, 0.5, "+2")],
  "twz" => [t.in_time_zone("America/New_York"), Time.zone.local(2026, 7, 1, 12)],
  "duration" => [2.hours + 30.minutes, 1.5.days, 1.week, 0.seconds, 90.seconds],
  "months" => [1.month + 2.days],
  "decimal" => [BigDecimal("1.50"), BigDecimal("-0.000012345678901234567890"), BigDecimal("1e30")],
  "range" => [1..5, 1...5, (1..), (Date.new(2026,1,1)..Date.new(2026,1,31)), ("a".."f"), (t.utc..(t+1).utc)],
  "module" => [Person, Comparable],
  "globalid" => [Person.new(1), {who: Person.new(2)}],
}
attributes = {user_id: 42, tenant: :acme, at: Date.new(2026, 11, 25), person: Person.new(3), since: 1.month}
puts JSON.pretty_generate(args.transform_values { |a| ActiveJob::Arguments.serialize(a) }.merge("attributes" => ActiveJob::Arguments.serialize(attributes)))
