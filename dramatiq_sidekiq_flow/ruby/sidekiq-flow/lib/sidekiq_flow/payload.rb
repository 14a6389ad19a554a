# frozen_string_literal: true

module SidekiqFlow::Companion
  # Reads a job as it stands in Redis, and writes the form in which it goes to
  # `dead`.
  module Payload
    # Fields that Sidekiq's rules for failures calculate with, unchecked.
    READ_BY_SIDEKIQ = {
      "backtrace" => ->(value) { value == true || value == false || value.is_a?(Integer) },
      "failed_at" => ->(value) { value.is_a?(Numeric) && value.between?(0, 1e14) },
      # Sidekiq subtracts one when a user presses "retry": -1 is common.
      "retry_count" => ->(value) { value.is_a?(Integer) && value.between?(-1_000_000, 1_000_000) },
      "retry_for" => ->(value) { value.is_a?(Numeric) && value.between?(0, 1_000_000_000) },
      "retry_queue" => ->(value) { value.is_a?(String) },
      "wrapped" => ->(value) { value.is_a?(String) }
    }.freeze

    # The class of a job in `dead` that holds bytes which are not a job.
    MALFORMED = "MalformedPayload"

    # Half of a surrogate pair, and numbers such as 1e999: Ruby reads them and
    # cannot write them.
    SUSPICIOUS = /\\u[dD]|[eE]\+?\d{3}|\d{300}/

    class << self
      # The JSON object of a payload, or nil.
      def parse(raw)
        text = raw.dup.force_encoding("UTF-8")
        return nil unless text.valid_encoding?

        job = JSON.parse(text)
        job if job.is_a?(Hash)
      rescue JSON::JSONError, EncodingError
        nil
      end

      # The error of a payload that Sidekiq must not be given, or nil: a payload
      # that its Processor cannot read ends a thread and stays in flight.
      def fault(raw)
        job = parse(raw)
        return MalformedPayload.new("The payload is not a JSON object.") if job.nil?
        if raw.match?(SUSPICIOUS) && !writable?(job)
          return MalformedPayload.new("The payload holds values that JSON cannot express.")
        end

        fault_of_shape(job) || fault_of_field(job)
      end

      # The payload that +dead+ has wrapped; any other payload as it is.
      def unwrapped(raw)
        return raw unless raw.include?(MALFORMED)

        job = parse(raw)
        return raw unless job && job["class"] == MALFORMED && job["raw"].is_a?(String)

        unwrapped(job["raw"].unpack1("m0"))
      rescue ArgumentError # not base64
        raw
      end

      # The payload for `dead` of a job that is not to run. If Sidekiq could not
      # push it again, it is wrapped: `args` shows it, `raw` holds its bytes in
      # base64.
      def dead(raw, error, queue)
        raw = unwrapped(raw)
        job = parse(raw)
        return wrapped(raw, MalformedPayload.new("The payload is not a JSON object."), queue) if job.nil?
        return wrapped(raw, error, queue, job["jid"]) unless job["class"].is_a?(String) && job["args"].is_a?(Array)

        job["jid"] = jid(job, raw)
        JSON.generate(failed(job, error, queue))
      rescue JSON::JSONError, EncodingError # Infinity, half of a surrogate pair
        wrapped(raw, error, queue)
      end

      # The id of a job, or one made of its bytes: the same bytes are the same job.
      def jid(job, raw)
        id = job && job["jid"]
        (id.is_a?(String) && !id.empty?) ? id : fingerprint(raw)
      end

      def fingerprint(raw)
        Digest::SHA1.hexdigest(raw)[0, 24]
      end

      # A time as this Sidekiq writes it: 7.x float seconds, 8.x milliseconds.
      def stamp(now = Time.now.to_f)
        (Sidekiq::VERSION.to_i >= 8) ? (now * 1000).floor : now
      end

      private

      def fault_of_shape(job)
        klass, args = job.values_at("class", "args")
        unless klass.is_a?(String) && !klass.empty?
          return InvalidPayload.new("A job needs a class, not #{klass.inspect[0, 200]}.")
        end

        InvalidPayload.new("A job needs an array of args, not #{args.inspect[0, 200]}.") unless args.is_a?(Array)
      end

      def fault_of_field(job)
        name, = READ_BY_SIDEKIQ.find { |field, readable| !job[field].nil? && !readable.call(job[field]) }
        InvalidPayload.new("The job's #{name} cannot be read: #{job[name].inspect[0, 200]}.") if name
      end

      # A job with the fields that Sidekiq sets at a failure (job_retry.rb,
      # process_retry).
      def failed(job, error, queue)
        after = job.merge(
          "queue" => job["retry_queue"] || queue,
          "error_message" => error.message.to_s[0, 10_000].scrub,
          "error_class" => error.class.name.delete_prefix("SidekiqFlow::Companion::")
        )
        if after["retry_count"].is_a?(Integer)
          after.merge("retried_at" => stamp, "retry_count" => after["retry_count"] + 1)
        else
          after.merge("failed_at" => stamp, "retry_count" => 0)
        end
      end

      def wrapped(raw, error, queue, jid = nil)
        wrapper = {
          "class" => MALFORMED, "args" => [raw.dup.force_encoding("UTF-8").scrub[0, 1000]],
          "jid" => (jid.is_a?(String) && !jid.empty?) ? jid : fingerprint(raw),
          "queue" => queue, "retry" => 0, "created_at" => stamp, "raw" => [raw].pack("m0")
        }
        JSON.generate(failed(wrapper, error, queue))
      end

      def writable?(job)
        JSON.generate(job)
        true
      rescue JSON::JSONError, EncodingError
        false
      end
    end
  end
end
