# frozen_string_literal: true

require "json"

module Replay
  UUID = /\h{8}-\h{4}-\h{4}-\h{4}-\h{12}/
  JID = /\A\h{24}\z/
  TIMES = %w[created_at enqueued_at].freeze

  # Seconds, from either of Sidekiq's two ways to write a time.
  def self.seconds(time)
    time.is_a?(Integer) ? time / 1000.0 : time
  end

  # Keys that no release of the gem has: the companion's own.
  OURS = /\Aswf:(?!mem:)|:u\z/

  # All of Redis, in the form of the recordings; TTLs in milliseconds.
  def self.snapshot(conn)
    conn.call("KEYS", "*").grep_v(OURS).sort.to_h do |key|
      type = conn.call("TYPE", key)
      value =
        case type
        when "string" then conn.call("GET", key)
        when "list" then conn.call("LRANGE", key, 0, -1)
        when "set" then conn.call("SMEMBERS", key)
        when "hash" then conn.call("HGETALL", key).then { |fields| fields.is_a?(Array) ? fields.each_slice(2).to_h : fields }
        when "zset" then conn.call("ZRANGE", key, 0, -1, "WITHSCORES").flatten.each_slice(2).map { |member, score| [member, score.to_f] }
        end
      [key, {"type" => type, "ttl" => conn.call("PTTL", key), "value" => value}]
    end
  end

  # One side of a comparison, recorded or live. Ids and jids get names in order
  # of appearance, the same names through a whole case; times go out of the
  # values and come back as numbers to compare with a tolerance.
  class View
    # +clock+ is the time that all others of this case are counted from.
    def initialize
      @names = {}
      @clock = nil
    end

    # [comparable value, {path => seconds}, {key => ttl}]
    def read(snapshot)
      times = {}
      jobs, plain = snapshot.partition { |_, entry| %w[list zset].include?(entry["type"]) }
      # Jobs first: the order of a queue says which id is which, while keys
      # come in the order of their random names.
      state = jobs.sort.to_h { |key, entry| [key, {"type" => entry["type"], "value" => job_values(key, entry["value"], times)}] }
      ttls = jobs.to_h { |key, entry| [key, entry["ttl"]] }
      in_order(plain).each do |key, entry|
        state[rename(key)] = {"type" => entry["type"], "value" => entry["value"].is_a?(Array) ? entry["value"].sort : entry["value"]}
        ttls[rename(key)] = entry["ttl"]
      end
      [state, times, ttls]
    end

    # One payload, as text that is the same on both sides when the values and
    # the order of keys are.
    def payload(raw, path, times)
      job = JSON.parse(raw)
      created = Replay.seconds(job["created_at"])
      @clock ||= created
      times["#{path} created_at"] = created - @clock
      times["#{path} enqueued_at"] = Replay.seconds(job["enqueued_at"]) - created if job["enqueued_at"]
      TIMES.each { |key| job[key] = "time" if job.key?(key) }
      JSON.generate(walk(job))
    end

    private

    def job_values(key, value, times)
      value.each_with_index.map do |(raw, score), index|
        text = payload(raw, "#{key}[#{index}]", times)
        times["#{key}[#{index}] delay"] = score - Replay.seconds(JSON.parse(raw)["created_at"]) if score
        text
      end
    end

    # Barriers that no payload names (those of an empty group) are told apart
    # by what they hold, for want of an order.
    def in_order(entries)
      known, unknown = entries.partition { |key, _| @names.key?(key[UUID]) || key[UUID].nil? }
      ran_of = entries.to_h { |key, entry| [key, entry["value"]] }
      known + unknown.sort_by { |key, _| [ran_of["#{key[UUID]}"].to_s, ran_of["#{key[UUID]}_ran"].to_s, key] }
    end

    def walk(value)
      case value
      when Hash then value.transform_values { |inner| walk(inner) }
      when Array then value.map { |inner| walk(inner) }
      when UUID, JID then rename(value)
      else value
      end
    end

    def rename(text)
      return @names[text] ||= "jid#{@names.size}" if text.match?(JID)

      text.gsub(UUID) { |id| @names[id] ||= "id#{@names.size}" }
    end
  end

  # What differs between a recorded and a live state, as lines to print.
  module Difference
    # A job's times hang on how fast the machine is; a delay does not, but for
    # the moment between taking the time and writing it.
    TOLERANCE = {"created_at" => 10, "enqueued_at" => 2, "delay" => 0.4}.freeze

    module_function

    # +elapsed+: seconds since the case began, by which a TTL may have sunk.
    # +longer+: whether one may be longer than recorded.
    def between(recorded, live, elapsed:, longer: false)
      states, times, ttls = recorded.zip(live)
      lines = values(*states)
      lines.concat(times(*times)) if lines.empty?
      lines.concat(ttls(*ttls, elapsed, longer)) if lines.empty?
      lines
    end

    def values(recorded, live)
      (recorded.keys | live.keys).reject { |key| recorded[key] == live[key] }.map do |key|
        "#{key}\n      recorded #{JSON.generate(recorded[key])}\n      now      #{JSON.generate(live[key])}"
      end
    end

    def times(recorded, live)
      recorded.filter_map do |path, seconds|
        off = (live.fetch(path) - seconds).abs
        "#{path} is off by #{off.round(3)} s" if off > TOLERANCE.fetch(path.split.last)
      end
    end

    def ttls(recorded, live, elapsed, longer)
      recorded.filter_map do |key, ttl|
        milliseconds = live.fetch(key)
        most = (longer && ttl != -1) ? Float::INFINITY : ttl * 1000
        same = (ttl == -1) ? milliseconds == -1 : milliseconds.between?((ttl - elapsed - 1) * 1000, most)
        "#{key} has TTL #{milliseconds / 1000.0} s, recorded #{ttl} s" unless same
      end
    end
  end
end
